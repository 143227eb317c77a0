"""What a CUDA device computes is what the CPU computes: losses, gradients, rankings, resumed runs, processes.

Everything here needs a CUDA device, and is skipped without one.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recbole_posattn import Config, Recommender, load, run
from recbole_posattn.errors import TrainingError
from recbole_posattn.models.baselines import BASELINES
from recbole_posattn.nn.attention import causal_attention
from recbole_posattn.nn.encodings.build import ENCODINGS
from recbole_posattn.nn.kernels.structures import STRUCTURES
from recbole_posattn.nn.losses.build import LOSSES
from recbole_posattn.training.engine import EngineMixin
from tests.test_engine import trained

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}
HYBRID = {"position_encoding": ["rope", "t5_bias"], "n_heads": 2}
OURS: dict[str, dict[str, Any]] = {
    **{model.__name__: {"model": model.__name__} for model in BASELINES},
    **{f"U and L {structure}": {"kernel_structure": f"{structure}-{structure}"} for structure in STRUCTURES},
    **{f"branch {structure}": {"kernel_branch": structure} for structure in STRUCTURES},
    **{encoding: {"position_encoding": [encoding], "n_heads": 2} for encoding in ENCODINGS},
    "hybrid": HYBRID,
    "hybrid, RecBole's backbone": {**HYBRID, "backbone": "recbole"},
    "items first": {**HYBRID, "position_alignment": "start"},
    "prefixes": {"train_objective": "augmented"},
    "padding attended": {"attend_padding": True, "backbone": "sasrec", "output_projection": True},
    "padding counted": {"preset": "paper"},
    "a kernel for each channel": {"kernel_groups": "hidden_size"},
    "cosine, label smoothing": {"score": "cosine", "label_smoothing": 0.1},
    **{f"loss {name}": {"loss_type": name} for name in LOSSES},
}
GENERAL = ["BPR", "LightGCN", "MultiVAE", "Pop"]
RECBOLES = ["SASRec", "GRU4Rec", "NARM", "BERT4Rec", "CORE", "FEARec", "FPMC", "Caser", *GENERAL]


def relative_error(computed: Tensor, expected: Tensor) -> float:
    """‖computed − expected‖ / ‖expected‖, in float64."""
    computed, expected = computed.detach().double().cpu(), expected.detach().double().cpu()
    return float((computed - expected).norm() / expected.norm().clamp(min=1e-12))


@pytest.mark.usefixtures("same_negatives")
@pytest.mark.parametrize("name", OURS)
def test_losses_gradients_and_scores_are_those_of_the_cpu(build: Callable, name: str) -> None:
    """float32 on the device, float64 on the CPU."""
    model, (train_data, valid_data, _) = build(**{**NO_DROPOUT, **OURS[name]})
    on_gpu = copy.deepcopy(model).float().cuda()
    batch, valid_batch = next(iter(train_data)), next(iter(valid_data))[0]
    loss, loss_on_gpu = model.calculate_loss(batch), on_gpu.calculate_loss(batch.to("cuda"))
    assert loss_on_gpu.is_cuda and relative_error(loss_on_gpu, loss) < 1e-5
    loss.backward()
    loss_on_gpu.backward()
    gradients = dict(on_gpu.named_parameters())
    for parameter_name, parameter in model.named_parameters():
        if parameter.grad is not None and parameter.grad.norm() > 1e-6:
            assert relative_error(gradients[parameter_name].grad, parameter.grad) < 1e-3, parameter_name
    scores, scores_on_gpu = model.full_sort_predict(valid_batch), on_gpu.full_sort_predict(valid_batch.to("cuda"))
    assert relative_error(scores_on_gpu, scores) < 1e-4


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [50, 600])
def test_attention_is_softmax_attention(length: int, dtype: torch.dtype, biased: bool, masked: bool) -> None:
    """Every path: fused, with a mask, with a bias, and in blocks of queries (600 positions)."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 2, length, 16, generator=generator) for _ in range(3))
    valid = torch.arange(length) >= torch.tensor([[3], [0]]) if masked else None
    slope = 0.1

    def bias(queries: Tensor, keys: Tensor, first: int) -> Tensor:
        row = torch.arange(first, first + queries.shape[-2], device=keys.device)
        return -slope * (row[:, None] - torch.arange(keys.shape[-2], device=keys.device))[None, None].abs()

    logits = query.double() @ key.double().mT / 4
    logits = logits + (bias(query, key, 0) if biased else 0)
    mask = torch.ones(length, length, dtype=torch.bool).tril() & (True if valid is None else valid[:, None, None])
    expected = torch.softmax(logits.masked_fill(~mask, -1e30), -1) @ value.double()
    expected = expected if valid is None else expected.masked_fill(~valid[:, None, :, None], 0)
    inputs = [x.to("cuda", dtype).requires_grad_() for x in (query, key, value)]
    options = {"valid": None if valid is None else valid.cuda(), "logit_bias": bias if biased else None}
    attended = causal_attention(*inputs, **options)
    assert relative_error(attended, expected) < (1e-5 if dtype == torch.float32 else 2e-2)
    attended.float().sum().backward()
    assert all(torch.isfinite(x.grad).all() for x in inputs)


def test_one_key_stands_for_all_padding_with_dropout() -> None:
    """Its weight keeps the share that the weights of as many keys would: mean 1 and the binomial variance."""
    torch.manual_seed(0)
    n, p, b = 20, 0.3, 4096
    query, key = torch.zeros(b, 1, 4, 8, device="cuda"), torch.zeros(b, 1, 5, 8, device="cuda")
    value = torch.zeros_like(key)
    value[:, :, 0] = 1.0  # the output is the weight of the padding
    valid = torch.ones(b, 5, dtype=torch.bool, device="cuda")
    y = causal_attention(query, key, value, valid, p, n_padding=torch.full((b,), n, device="cuda"))[:, 0, 0, 0]
    share = y * (n + 1) / n
    assert abs(float(share.mean()) - 1) < 0.01
    assert float(share.var()) == pytest.approx(p / ((1 - p) * n), rel=0.1)


@pytest.mark.parametrize("chunk_size", [1, 7, "auto", None])
def test_cross_entropy_in_chunks_is_pytorchs(build: Callable, chunk_size: object) -> None:
    model, _ = build(loss_chunk_size=chunk_size)
    hidden = torch.randn(30, 16, device="cuda", dtype=torch.float64, requires_grad=True)
    weight = torch.randn(21, 16, device="cuda", dtype=torch.float64, requires_grad=True)
    target = torch.randint(1, 21, (30,), device="cuda")
    loss = model.loss.cuda()(hidden, target, weight)
    expected = F.cross_entropy(hidden @ weight.T, target)
    torch.testing.assert_close(loss, expected)
    actual_gradients = torch.autograd.grad(loss, (hidden, weight))
    torch.testing.assert_close(actual_gradients, torch.autograd.grad(expected, (hidden, weight)))


@pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled")  # LightGCN's matrices
@pytest.mark.parametrize("model", ["PosKernelSASRec", "BSARec", *RECBOLES])
def test_a_run_ends_where_it_ends_on_the_cpu(tiny_settings: Callable, model: str) -> None:
    """Trained for an epoch and evaluated in several batches; without dropout, only rounding differs."""
    settings = tiny_settings(
        **NO_DROPOUT,
        dropout_prob=0.0,
        dropout_probs=[0.0, 0.0],
        sess_dropout=0.0,
        item_dropout=0.0,
        epochs=1,
        n_heads=1,
    )
    settings |= {"eval_batch_size": 64, "checkpoint_dir": "gpu"}
    settings |= {"mask_history": "all"} if model not in GENERAL else {}
    on_gpu = run(model, "tiny", config_dict=settings, command_line=[])
    assert load(on_gpu["checkpoint"]).config["device"].type == "cuda"
    on_cpu = run(model, "tiny", config_dict={**settings, "use_gpu": False, "checkpoint_dir": "cpu"}, command_line=[])
    if model not in ("BERT4Rec", "Caser", "MultiVAE"):  # these draw masks or dropout on the device
        losses = [result["curve"][0]["loss"] for result in (on_gpu, on_cpu)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert on_gpu["test_result"].keys() == on_cpu["test_result"].keys()
    assert 0 <= on_gpu["test_result"]["ndcg@10"] <= 1


ON_A_CPU = """
import json, sys, torch
from recbole_posattn import Recommender
from recbole_posattn.training.load import evaluate_checkpoint

assert not torch.cuda.is_available()
metrics, _ = evaluate_checkpoint(sys.argv[1])
lists = Recommender.load(sys.argv[1]).recommend(json.loads(sys.argv[2]), k=3)
print(json.dumps([metrics, lists["item"].tolist(), lists["score"].tolist()]))
"""


def test_a_checkpoint_of_the_card_works_on_a_cpu(tiny_settings: Callable) -> None:
    on_gpu = run("PosKernelSASRec", "tiny", config_dict=tiny_settings(), command_line=[])
    tokens = load(on_gpu["checkpoint"]).dataset.field2id_token["item_id"].tolist()
    histories = {"a": tokens[1:4], "b": tokens[4:5]}
    lists = Recommender.load(on_gpu["checkpoint"]).recommend(histories, k=3)
    command = [sys.executable, "-c", ON_A_CPU, str(Path(on_gpu["checkpoint"]).absolute()), json.dumps(histories)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    metrics, items, scores = json.loads(done.stdout.splitlines()[-1])
    assert metrics == pytest.approx(dict(on_gpu["test_result"]), abs=1e-3)
    assert items == lists["item"].tolist()
    assert scores == pytest.approx(lists["score"].tolist(), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("is_supported", [True, False], ids=["bfloat16", "float16"])
def test_mixed_precision(tiny_settings: Callable, monkeypatch: pytest.MonkeyPatch, is_supported: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: is_supported)
    _, plain_loss = trained("PosKernelSASRec", tiny_settings(**NO_DROPOUT))
    mixed, loss = trained("PosKernelSASRec", tiny_settings(**NO_DROPOUT, enable_amp=True))
    assert mixed.enable_scaler is not is_supported
    assert loss == pytest.approx(plain_loss, rel=0.02)
    assert {weights.dtype for weights in mixed.model.parameters()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch.compile's own
def test_a_compiled_model_is_the_model(tiny_settings: Callable) -> None:
    _, loss = trained("PosKernelSASRec", tiny_settings(**NO_DROPOUT))
    _, compiled_loss = trained("PosKernelSASRec", tiny_settings(**NO_DROPOUT, torch_compile=True))
    assert compiled_loss == pytest.approx(loss, rel=1e-3)


class PowerCut(BaseException):
    """Ends a run at any point; no code catches it."""


@pytest.mark.parametrize("changes", [{}, {"enable_amp": True}, {"loss_type": "SSM"}], ids=str)
def test_a_resumed_run_draws_the_same_random_numbers(
    tiny_settings: Callable, monkeypatch: pytest.MonkeyPatch, changes: dict
) -> None:
    """Dropout and negatives are drawn on the device; other numbers would change the losses by percents."""
    settings = tiny_settings(epochs=4, learning_rate=0.01, **changes)
    undisturbed = run("PosKernelSASRec", "tiny", config_dict={**settings, "checkpoint_dir": "whole"}, command_line=[])
    train_epoch = EngineMixin._train_epoch

    def stopped(trainer: Any, train_data: Any, epoch: int, *more: Any, **options: Any) -> Any:
        losses = train_epoch(trainer, train_data, epoch, *more, **options)
        if epoch == 2:
            raise PowerCut
        return losses

    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        patch.setattr(EngineMixin, "_train_epoch", stopped)
        run("PosKernelSASRec", "tiny", config_dict=settings, command_line=[])
    torch.cuda.manual_seed_all(3)
    resumed = run("PosKernelSASRec", "tiny", config_dict=settings, command_line=[], resume="auto")
    losses = [[point["loss"] for point in result["curve"]] for result in (resumed, undisturbed)]
    assert losses[0] == pytest.approx(losses[1], rel=2e-4)


DISTRIBUTED = """
import torch
from recbole_posattn import distributed
from recbole_posattn.training.parallel import distribute_model

device = torch.device("cuda", 0)
torch.distributed.init_process_group("nccl")  # distributed.join leaves a single process alone
assert distributed.world_size() == 1
model = torch.nn.Linear(4, 3).to(device)
wrapped = distribute_model(model, device)
x = torch.randn(8, 4, device=device)
wrapped(x).square().sum().backward()
expected = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
assert all(torch.allclose(parameter.grad, grad) for parameter, grad in zip(model.parameters(), expected))
assert float(distributed.total(torch.ones(1, device=device))) == 1
distributed.leave()
print("done")
"""


def test_nccl_averages_gradients(tmp_path: Path) -> None:
    script = tmp_path / "process.py"
    script.write_text(DISTRIBUTED, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0 and done.stdout.strip().endswith("done"), done.stderr


@pytest.fixture
def little_memory() -> Iterator[None]:
    """This process may use some MiB of the device's memory."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 24 * 2**20) / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.mark.usefixtures("little_memory")
def test_a_full_card_is_explained_in_one_line(tiny_settings: Callable) -> None:
    for sizes in ({"hidden_size": 1024, "inner_size": "4x"}, {"hidden_size": 256, "train_batch_size": 2048}):
        with pytest.raises(TrainingError, match="out of memory") as error:
            settings = tiny_settings(**sizes, MAX_ITEM_LIST_LENGTH=200, train_objective="augmented")
            run("PosKernelSASRec", "tiny", config_dict=settings, command_line=[])
        assert "\n" not in str(error.value)


def test_the_card_is_the_default(tiny_settings: Callable) -> None:
    assert Config("PosKernelSASRec", "tiny", config_dict=tiny_settings(), command_line=[])["device"].type == "cuda"
