"""The objective is its formula in float64, and known scenes teach nothing."""

from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from mask2dit import Mask2DiTTransformer3DModel, SceneLayout
from mask2dit.errors import InputError
from mask2dit.training.objective import scene_loss
from reference import PlainTransformer

FRAMES = (2, 1, 3)
LAYOUT = SceneLayout((3, 5, 4), (12, 6, 18))


@pytest.fixture
def model() -> Mask2DiTTransformer3DModel:
    return tiny.transformer()


def batch(seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "latents": torch.randn(2, 6, 4, 4, 6, generator=generator),
        "noise": torch.randn(2, 6, 4, 4, 6, generator=generator),
        "timestep": torch.tensor([700, 20]),
        "prompt_embeds": torch.randn(2, 12, 20, generator=generator),
        "layout": LAYOUT,
        "scheduler": tiny.released_scheduler(),
    }


def one_of(values: dict[str, Any], sample: int) -> dict[str, Any]:
    return {name: value[[sample]] if isinstance(value, Tensor) else value for name, value in values.items()}


def plain_loss(plain: PlainTransformer, values: dict[str, Any], known: list[set[int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Scene by scene, sample by sample, in float64."""
    alphas = values["scheduler"].alphas_cumprod.double()
    latents, noise = values["latents"].double(), values["noise"].double()
    noisy, target = latents.clone(), torch.zeros_like(latents)
    timestep = torch.zeros(2, 3, dtype=torch.long)
    for sample in range(2):
        alpha = alphas[values["timestep"][sample]]
        target[sample] = alpha.sqrt() * noise[sample] - (1 - alpha).sqrt() * latents[sample]
        for scene, frames in enumerate(torch.arange(6).split(FRAMES)):
            if scene not in known[sample]:
                noisy[sample, frames] = alpha.sqrt() * latents[sample, frames] + (1 - alpha).sqrt() * noise[sample, frames]
                timestep[sample, scene] = values["timestep"][sample]
    prediction = plain(noisy, values["prompt_embeds"], timestep, LAYOUT)
    errors = [
        (prediction[sample, frames] - target[sample, frames]).square().flatten()
        for sample in range(2)
        for scene, frames in enumerate(torch.arange(6).split(FRAMES))
        if scene not in known[sample]
    ]
    return torch.cat(errors).mean(), prediction, target


@pytest.mark.parametrize("known", [[set(), set()], [{0, 1}, {0, 1}], [{1}, {1}], [{0, 2}, {1}], [{0, 1, 2}, set()]], ids=str)
def test_the_loss_is_its_formula(model: Mask2DiTTransformer3DModel, known: list[set[int]]) -> None:
    values = batch()
    loss, prediction, target = scene_loss(model, known=known, **values)
    plain = PlainTransformer(model, "symmetric")
    expected, plain_prediction, plain_target = plain_loss(plain, values, known)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(prediction.double(), plain_prediction, rtol=0, atol=3e-5)
    torch.testing.assert_close(target.double(), plain_target, rtol=0, atol=1e-5)
    assert prediction.dtype == target.dtype == torch.float32

    loss.backward()
    expected.backward()
    for name, parameter in model.named_parameters():
        gradient = plain.weights[name].grad
        assert gradient is not None and (parameter.grad - gradient).norm() <= 2e-5 * gradient.norm() + 1e-7, name


def test_one_set_is_the_same_set_for_every_sample(model: Mask2DiTTransformer3DModel) -> None:
    values = batch()
    assert torch.equal(scene_loss(model, known={0, 1}, **values)[0], scene_loss(model, known=[{0, 1}, {0, 1}], **values)[0])
    assert not torch.equal(scene_loss(model, known={0, 1}, **values)[0], scene_loss(model, known=set(), **values)[0])


def test_a_batch_of_two_is_two_batches_of_one(model: Mask2DiTTransformer3DModel) -> None:
    values = batch()
    both = scene_loss(model, known=[{0}, {0}], **values)
    alone = [scene_loss(model, known={0}, **one_of(values, sample)) for sample in range(2)]
    assert both[0].item() == pytest.approx((alone[0][0].item() + alone[1][0].item()) / 2, rel=1e-6)
    for sample in range(2):
        torch.testing.assert_close(both[1][[sample]], alone[sample][1], rtol=0, atol=1e-5)

    # With other known scenes in each, an element counts the same wherever it is.
    mixed = scene_loss(model, known=[{0}, {1, 2}], **values)[0].item()
    first, second = (scene_loss(model, known=known, **one_of(values, sample))[0].item() for sample, known in enumerate([{0}, {1, 2}]))
    assert mixed == pytest.approx((4 * first + 2 * second) / 6, rel=1e-5)


def test_no_gradient_comes_from_known_scenes(model: Mask2DiTTransformer3DModel) -> None:
    values = batch()
    loss, prediction, target = scene_loss(model, known={0, 2}, **values)
    (gradient,) = torch.autograd.grad(loss, prediction, retain_graph=True)
    assert not gradient[:, :2].any() and gradient[:, 2:3].all() and not gradient[:, 3:].any()

    loss.backward()
    before = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    values["noise"] = values["noise"].clone()
    values["noise"][:, :2] = 1e3  # the noise, and so the target, of a known scene
    other, _, other_target = scene_loss(model, known={0, 2}, **values)
    other.backward()
    assert not torch.equal(target, other_target)
    assert torch.equal(loss, other)
    assert all(torch.equal(before[name], parameter.grad) for name, parameter in model.named_parameters())


def test_known_scenes_go_in_clean_at_timestep_0() -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def model(
        noisy: Tensor, captions: Tensor, timestep: Tensor, layout: SceneLayout, return_dict: bool, known_scenes: Any
    ) -> tuple[Tensor]:
        seen.append((noisy, timestep))
        return (torch.zeros_like(noisy),)

    values = batch()
    scene_loss(model, known=[{0}, {1, 2}], **values)
    noisy, timestep = seen[0]
    assert timestep.tolist() == [[0, 700, 700], [20, 0, 0]]
    assert torch.equal(noisy[0, :2], values["latents"][0, :2]) and torch.equal(noisy[1, 2:], values["latents"][1, 2:])
    assert not torch.equal(noisy[0, 2:], values["latents"][0, 2:])


def test_a_half_precision_model_gets_its_dtype_and_the_loss_is_float32() -> None:
    model = tiny.transformer().to(torch.bfloat16)
    values = batch() | {"prompt_embeds": batch()["prompt_embeds"].to(torch.bfloat16)}
    loss, prediction, target = scene_loss(model, known={0}, **values)
    assert loss.dtype == prediction.dtype == target.dtype == torch.float32 and loss.isfinite()
    assert loss.item() == pytest.approx(scene_loss(tiny.transformer(), known={0}, **batch())[0].item(), rel=0.05)


@pytest.mark.parametrize("known", [{3}, {-1}, [{0}], [{0}, {0}, {0}]], ids=str)
def test_known_scenes_that_do_not_exist_are_refused(model: Mask2DiTTransformer3DModel, known: Any) -> None:
    with pytest.raises(InputError, match=r"known: got .*, expected scene indices 0 to 2, one set, or one for each of 2 samples"):
        scene_loss(model, known=known, **batch())


def test_a_batch_with_nothing_to_learn_is_refused(model: Mask2DiTTransformer3DModel) -> None:
    with pytest.raises(InputError, match="known: got every scene of every sample, expected at least one scene to learn"):
        scene_loss(model, known={0, 1, 2}, **batch())
