"""Every model on a device that is not the CPU, on any machine: no tensor is made on the wrong one."""

from __future__ import annotations

import copy
from collections.abc import Callable

from recbole_posattn.compat.tensorboard import without_tensorboard

import pytest
import torch
from recbole.data.interaction import Interaction
from recbole.utils import init_seed
from torch import Tensor

from recbole_posattn import Config
from recbole_posattn.data import loaders, shorter
from recbole_posattn.data.loaders import PinnedRows
from recbole_posattn.training.load import prepare_data
from recbole_posattn.training.trainer import trainer_class
from recbole_posattn.training.trim_check import find_trimming
from tests.second_device import DEVICE, OnSecondDevice, second_device
from tests.test_cuda import NO_DROPOUT, OURS

pytestmark = pytest.mark.usefixtures("same_negatives")


# A branch of each structure is left to the tests on a GPU: it is the kernel of U and L.
@pytest.mark.parametrize("name", [name for name in OURS if not name.startswith("branch ")])
def test_losses_gradients_and_scores_are_those_of_the_cpu(build: Callable, name: str) -> None:
    model, (train_data, valid_data, _) = build(**{**NO_DROPOUT, **OURS[name]})
    batch, valid_batch = next(iter(train_data)), next(iter(valid_data))[0]
    loss, scores = model.calculate_loss(batch), model.full_sort_predict(valid_batch)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    with second_device():
        moved = copy.deepcopy(model).to(DEVICE)
        assert all(isinstance(parameter, OnSecondDevice) for parameter in moved.parameters())
        loss_there = moved.calculate_loss(batch.to(DEVICE))
        loss_there.backward()
        scores_there = moved.full_sort_predict(valid_batch.to(DEVICE))
        torch.testing.assert_close(loss_there.detach().cpu(), loss.detach())
        torch.testing.assert_close(scores_there.detach().cpu(), scores.detach())
        for name, parameter in moved.named_parameters():
            if gradients[name] is not None:
                torch.testing.assert_close(parameter.grad.cpu(), gradients[name], msg=name)


def test_a_gpu_takes_small_batches_whole(build: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lengths 1 to 24 make three buckets on a CPU, and on a GPU only where padding costs more than the kernels."""
    model, _ = build(MAX_ITEM_LIST_LENGTH=24)
    length = torch.arange(1, 25)
    monkeypatch.setitem(shorter.GROUP_COST, "cuda", 24 * 24)
    with second_device():
        assert [bucket.cpu().tolist() for bucket in model._buckets(length.to(DEVICE))] == [list(range(24))]
        monkeypatch.setitem(shorter.GROUP_COST, "cuda", 100)
        buckets = [bucket.cpu().tolist() for bucket in model._buckets(length.to(DEVICE))]
    assert buckets == [bucket.tolist() for bucket in model._buckets(length)] and len(buckets) == 3


@pytest.mark.slow
@pytest.mark.parametrize("model", ["PosKernelSASRec", "GRU4Rec", "BERT4Rec", "BPR"])
def test_trains_and_ranks(tiny_settings: Callable, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    """Through the engine: the trainer moves each batch, and gathers what the metrics need."""
    for sizes in (loaders.SCORES_PER_BATCH, shorter.GROUP_COST):
        monkeypatch.setitem(sizes, DEVICE.type, sizes["cuda"])
    config = Config(model, "tiny", config_dict=tiny_settings(n_heads=1, train_batch_size=512), command_line=[])
    init_seed(config["seed"], config["reproducibility"])
    _, (train_data, valid_data, _) = prepare_data(config)
    with without_tensorboard(), second_device():
        config["device"] = DEVICE
        recommender = config.model_class(config, train_data._dataset).to(DEVICE)
        trainer = trainer_class(config)(config, recommender)
        trainer._prepare_losses(train_data)
        loss = trainer._train_epoch(train_data, 0)
        score, _ = trainer._valid_epoch(valid_data)
    assert float(loss) > 0 or model == "Pop"
    assert 0 <= score <= 1


def test_an_index_out_of_bounds_is_found_before_the_gpu_fails(
    tiny_settings: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some losses, such as FEARec's, look up all places of the full length, on shorter histories as well."""
    monkeypatch.setitem(shorter.GROUP_COST, DEVICE.type, 1)
    config = Config("SASRec", "tiny", config_dict=tiny_settings(MAX_ITEM_LIST_LENGTH=20), command_line=[])
    _, (train_data, _, _) = prepare_data(config)
    with second_device():
        config["device"] = DEVICE
        model = config.model_class(config, train_data._dataset).to(DEVICE)

        def loss(batch: Interaction) -> Tensor:
            all_places = batch[model.ITEM_SEQ][:, torch.arange(20, device=DEVICE)]
            return model.calculate_loss(batch) + 0 * all_places.sum()

        found = find_trimming(model, shorter.HistoryCutter(config, train_data._dataset), train_data, loss)
    assert found.trimming.training == "no"
    assert found.why_not_groups == "it fails on shorter histories (IndexError)"


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator is found")
def test_batches_for_a_gpu_are_those_for_the_cpu(tiny_settings: Callable) -> None:
    """In page-locked memory, which needs a GPU; the rows are the same."""
    batches = []
    for device in ("cpu", "cuda"):
        config = Config("PosKernelSASRec", "tiny", config_dict=tiny_settings(), command_line=[])
        config["device"] = torch.device(device)
        _, (train_data, valid_data, _) = prepare_data(config)
        batches.append([*train_data, *(batch[0] for batch in valid_data)])
    assert len(batches[0]) == len(batches[1]) > 2
    for on_cpu, for_gpu in zip(*batches):
        assert isinstance(for_gpu, PinnedRows) and not isinstance(on_cpu, PinnedRows)
        assert all(torch.equal(on_cpu[field], for_gpu[field]) for field in on_cpu.interaction)
