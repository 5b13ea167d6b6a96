import pytest
import torch

from cv_lab.data.preprocess import Preprocessing
from tests.pretended_device import pretended_device


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_images_are_normalised_and_stay_as_they_were(dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    images = torch.randint(0, 256, (2, 3, 5, 7)).to(dtype).contiguous(memory_format=memory_format)
    before = images.clone()
    mean, std = torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1), torch.tensor([0.2, 0.3, 0.25]).view(1, 3, 1, 1)
    normalised = Preprocessing((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))(images)
    assert torch.allclose(normalised, (images / 255 - mean) / std, atol=1e-5)
    assert normalised.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)


def test_images_of_another_size_are_scaled() -> None:
    scale = Preprocessing((0.5,) * 3, (0.5,) * 3, size=8, interpolation="bicubic")
    assert scale(torch.full((2, 3, 4, 4), 255)).shape == (2, 3, 8, 8)
    assert scale(torch.full((2, 3, 4, 6), 255)).shape == (2, 3, 4, 6)  # chosen by its user
    assert torch.allclose(scale(torch.full((2, 3, 16, 16), 255)), torch.ones(2, 3, 8, 8), atol=1e-5)


def test_what_the_network_does_not_say_is_the_data_sets() -> None:
    mixed = Preprocessing(size=8).over((0.1,) * 3, (0.2,) * 3)
    assert mixed == Preprocessing((0.1,) * 3, (0.2,) * 3, 8)


def test_a_device_is_not_waited_for() -> None:
    normalise = Preprocessing((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    images = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    with pretended_device() as waits:
        moved = images.to("gpu")
        waits.clear()
        with torch.inference_mode():
            first = normalise(moved)
        second = normalise(moved)
        assert not waits
        weight = torch.ones(1, 3, 1, 1, device="gpu", requires_grad=True)
        (weight * second).sum().backward()  # what inference mode has seen before serves training
        assert torch.equal(first.cpu(), normalise(images))
        assert torch.equal(second.detach().cpu(), normalise(images))
