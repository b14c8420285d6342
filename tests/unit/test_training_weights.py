"""Weights of the depth network: folded, exported and read back they compute the same; blends; cooled attention."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("PIL", reason="the scene renderer draws with Pillow")

from inference.depth import canvas
from inference.training import render

if TYPE_CHECKING:
    from inference.training.network import ReliefNet


def stirred(seed: int) -> ReliefNet:
    """A network none of whose parts is without effect or like another, with statistics in every batch norm."""
    torch = pytest.importorskip("torch", reason="training needs torch, which the application does not")
    from inference.training import weights
    from inference.training.network import ReliefNet

    torch.manual_seed(seed)
    network = ReliefNet()
    with torch.no_grad():
        for value in network.parameters():
            value += 0.02 * torch.randn(value.shape)
    weights.calibrate(network, torch.rand(4, 3, render.HEIGHT, render.WIDTH))
    return network.eval()


def test_a_network_survives_being_folded_exported_and_read_back(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="training needs torch, which the application does not")
    pytest.importorskip("onnx", reason="export needs onnx")
    from inference.training import export, fold, weights
    from inference.training.network import ReliefNet

    network, again, small = stirred(3), ReliefNet().eval(), ReliefNet().eval()
    frames = np.random.default_rng(2).integers(0, 256, (4, render.HEIGHT, render.WIDTH, 3), np.uint8)
    pictures = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    export.write_float(network, tmp_path / "float.onnx")
    filled = weights.load_onnx(again, tmp_path / "float.onnx")
    assert {name for name, _ in network.named_parameters()} <= filled
    export.write_int8(tmp_path / "float.onnx", tmp_path / "int8.onnx", np.concatenate([frames, frames // 9]))
    assert weights.load_onnx(small, tmp_path / "int8.onnx") == filled
    with torch.inference_mode():
        expected = network(pictures)
        folded, blank = fold.folded(network), canvas.blank(render.HEIGHT, render.WIDTH)
        shipped, made, reliefs = export.Shipped(folded), list[tuple[Any, ...]](), list[Any]()
        for frame in frames:
            canvas.paint(frame, blank)
            painted = torch.from_numpy(blank).float()
            lanes, *rest = folded.beyond(folded.stem(painted.permute(0, 3, 1, 2)))
            made.append((torch.nn.functional.pixel_shuffle(lanes.clamp(0, 1), 4)[:, 0], *rest))
            lanes, trust = shipped(painted)
            reliefs.append(canvas.finish((lanes[0].numpy() * 255 + 0.5).astype(np.uint8), trust[0].numpy()))
        for results, places in ((tuple(map(torch.cat, zip(*made, strict=True))), 0.005), (again(pictures), 0.001)):
            for found, wanted in zip(results, expected, strict=True):  # a byte says where a pixel is, to a 255th
                assert torch.allclose(found, wanted, atol=places)
        assert np.abs(export.run(tmp_path / "float.onnx", frames) - reliefs).max() < 0.01
        assert np.abs(export.run(tmp_path / "int8.onnx", frames) - reliefs).mean() < 0.1 * np.std(reliefs)
        for found, wanted in zip(small(pictures), expected, strict=True):
            assert (found - wanted).abs().mean() < 0.1 * wanted.abs().mean()


def test_files_of_earlier_layouts_are_read(tmp_path: Path) -> None:
    """Batch norm folded and nothing else, as in the first eight runs' files, in the last ones with matrices in 8 bits.

    Linear layers were products with matrices that had no name; 8 bits had a scale for each column.
    """
    torch = pytest.importorskip("torch", reason="training needs torch, which the application does not")
    onnx = pytest.importorskip("onnx", reason="weights are read with onnx")
    from inference.training import weights
    from inference.training.network import ReliefNet

    network, pictures = stirred(5), torch.rand(2, 3, render.HEIGHT, render.WIDTH)
    held = {name: value.detach().numpy() for name, value in network.named_parameters()}
    linear = [n for n, m in network.tokens.named_modules(prefix="tokens") if isinstance(m, torch.nn.Linear)]
    matrices = {name: held.pop(f"{name}.weight").T for name in linear}
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Sequential) and len(module) > 1 and isinstance(module[1], torch.nn.BatchNorm2d):
            fused = torch.nn.utils.fusion.fuse_conv_bn_eval(module[0], module[1])
            held |= {f"{name}.0.weight": fused.weight.detach().numpy(), f"{name}.0.bias": fused.bias.detach().numpy()}
            del held[f"{name}.1.weight"], held[f"{name}.1.bias"]
    for codes in (False, True):
        constants, nodes, again = {f"network.{name}": value for name, value in held.items()}, [], ReliefNet().eval()
        for number, (name, matrix) in enumerate(matrices.items()):
            own, product = f"onnx::MatMul_{number}", f"product_{number}"
            taken = own
            if codes:
                scale = np.abs(matrix).max(0) / 127
                constants |= {
                    f"{own}_quantized": np.round(matrix / scale).astype(np.int8),
                    f"{own}_scale": scale,
                    f"{own}_zero_point": np.zeros(len(scale), np.int8),
                }
                read = [f"{own}{part}" for part in ("_quantized", "_scale", "_zero_point")]
                taken = f"{own}_DequantizeLinear_Output"
                nodes.append(onnx.helper.make_node("DequantizeLinear", read, [taken], axis=1))
            else:
                constants[own] = matrix
            nodes.append(onnx.helper.make_node("MatMul", [f"x_{number}", taken], [product]))
            nodes.append(onnx.helper.make_node("Add", [f"network.{name}.bias", product], [f"sum_{number}"]))
        stored = [onnx.numpy_helper.from_array(np.ascontiguousarray(v), name) for name, v in constants.items()]
        onnx.save(onnx.helper.make_model(onnx.helper.make_graph(nodes, "old", [], [], stored)), str(tmp_path / "old"))
        assert {name for name, _ in network.named_parameters()} <= weights.load_onnx(again, tmp_path / "old")
        with torch.inference_mode():
            for found, wanted in zip(again(pictures), network(pictures), strict=True):
                assert torch.allclose(found, wanted, atol=0.05 if codes else 1e-3)


def test_a_blend_lies_between_its_ends_and_leaves_alone_what_the_start_lacks() -> None:
    torch = pytest.importorskip("torch", reason="training needs torch, which the application does not")
    pytest.importorskip("onnx", reason="weights are read with onnx")
    from inference.training import weights

    network, start = stirred(3), stirred(4)
    pictures = torch.rand(8, 3, render.HEIGHT, render.WIDTH)
    names = {name for name in network.state_dict() if not name.startswith(("letters", "card"))}
    before = {name: value.clone() for name, value in network.state_dict().items()}
    none, whole = (weights.blend(network, start, share, pictures, names) for share in (0.0, 1.0))
    with torch.inference_mode():
        assert torch.allclose(none(pictures)[0], network(pictures)[0], atol=1e-3)
        assert torch.allclose(whole(pictures)[0], start(pictures)[0], atol=1e-3)
        assert not torch.allclose(network(pictures)[0], start(pictures)[0], atol=0.05)
    assert torch.equal(whole.card[0].weight, network.card[0].weight)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_attention_with_one_answer_is_cooled() -> None:
    torch = pytest.importorskip("torch", reason="training needs torch, which the application does not")
    pytest.importorskip("onnx", reason="weights are read with onnx")
    from inference.training import weights
    from inference.training.network import ReliefNet

    torch.manual_seed(3)
    network = ReliefNet()
    width = network.tokens[0].query_key_value.in_features
    with torch.no_grad():
        network.tokens[0].query_key_value.weight[:width] *= 400
    pictures = torch.rand(4, 3, render.HEIGHT, render.WIDTH)
    gentle = network.tokens[1].query_key_value.weight.clone()
    hot = weights.cool(network, pictures)
    assert hot[0] > 2 * weights.SHARPEST
    assert weights.score_ranges(network, pictures)[0] == pytest.approx(weights.SHARPEST, rel=0.01)
    assert torch.equal(network.tokens[1].query_key_value.weight, gentle)


def test_what_tells_cards_is_trained_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="training needs torch, which the application does not")
    pytest.importorskip("onnx", reason="weights are read with onnx")
    from inference.training import cards
    from inference.training.network import ReliefNet

    torch.manual_seed(7)
    before, run = ReliefNet().state_dict(), tmp_path / "on"
    torch.save({"average": before}, tmp_path / "start.pt")
    monkeypatch.setattr(cards, "BATCH", 4)
    assert (
        cards.main(["--init", str(tmp_path / "start.pt"), "--minutes", "0.05", "--out", str(run), "--renderers", "1"])
        == 0
    )
    after = torch.load(run / "checkpoint.pt", weights_only=True)["average"]
    changed = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"letters", "card"}
