"""Names to bundles: tiny, folders, siblings, the hub, and a cache that exports and hashes once."""

import json
import os
import shutil

import pytest
from huggingface_hub import constants
from PIL import Image
from qvl_local.runtime import Library, hardware
from qvl_local.runtime.errors import BundleError, InputError, ModelError, ModelNotFoundError, ParityError
from qvl_local.runtime.library.indexer import IndexSettings
from qvl_local.runtime.library.workers import WorkerSettings
from qvl_local.runtime.model import bundle_cache
from qvl_local.runtime.model import resolve as resolve_module
from qvl_local.runtime.model.bundle_cache import export_once
from qvl_local.runtime.model.checkpoints import Checkpoint, find_checkpoints
from qvl_local.runtime.model.published import published_config
from qvl_local.runtime.model.resolve import recommended_precisions, resolve

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("QVL_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def pair(tmp_path, tiny_folder):
    """A copy of the tiny pair, to be renamed and changed."""
    for name in ("embedding", "reranker"):
        shutil.copytree(tiny_folder / name, tmp_path / "models" / name)
    return tmp_path / "models"


def test_tiny_is_a_pair_exported_once(cache, monkeypatch):
    first = resolve("tiny")
    assert set(first.manifest.parts) == {"embedder", "reranker"}
    assert first.path.parent == cache / "bundles"
    assert first.part("embedder").decoder_precision == "fp32"

    def refuse(*_args, **_kwargs):
        raise AssertionError("read or exported again")

    monkeypatch.setattr(bundle_cache, "_exporter", refuse)
    monkeypatch.setattr(bundle_cache, "remembered_sha256", refuse)
    assert resolve("tiny").path == first.path


def test_a_bundle_folder_is_itself():
    bundle = resolve("tiny")
    assert resolve(bundle.path).path == bundle.path
    assert resolve(str(bundle.path), precision="fp32").path == bundle.path
    with pytest.raises(InputError, match="is a bundle of fp32 weights, not fp16"):
        resolve(bundle.path, precision="fp16")


def test_a_bundle_folder_knows_the_name_of_its_precision(tmp_path):
    """What int8-safe gives decoders is called int8-fine; both names are its."""
    folder = shutil.copytree(resolve("tiny").path, tmp_path / "bundle")
    manifest = json.loads((folder / "qvl.json").read_text(encoding="utf-8"))
    for part in manifest["parts"].values():
        part["decoder_precision"] = "int8-fine"
    (folder / "qvl.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert resolve(folder, precision="int8-safe").path == folder
    assert resolve(folder, precision="int8-fine").path == folder
    with pytest.raises(InputError, match="is a bundle of int8-safe weights, not int8"):
        resolve(folder, precision="int8")


def test_an_export_in_the_cache_works_without_its_checkpoint(cache, pair, tmp_path):
    """As docs/hub.md says of downloads that were removed, for a library that was indexed before, too."""
    Image.linear_gradient("L").save(tmp_path / "a.png")
    settings = IndexSettings(workers=WorkerSettings(1))
    with Library.open(tmp_path / "library", model=pair, settings=settings) as library:
        assert library.index([tmp_path / "a.png"]).added == 1
    (folder,) = (cache / "bundles").iterdir()
    shutil.rmtree(pair)
    with Library.open(tmp_path / "library", model=folder, settings=settings) as library:
        report = library.index([tmp_path / "a.png"])
        assert (report.items, report.unchanged, report.failed) == (1, 1, ())
        (hit,) = library.search("a gradient").hits
        assert hit.reranker_score is not None
        with pytest.raises(ModelNotFoundError):
            resolve(pair)


def test_each_precision_is_a_bundle_of_its_own():
    half = resolve("tiny", precision="fp16")
    assert half.part("embedder").decoder_precision == "fp16"
    assert half.path != resolve("tiny").path
    with pytest.raises(InputError):
        resolve("tiny", precision="fp7")


def test_a_changed_checkpoint_is_another_bundle_and_a_touched_one_is_not(cache, pair):
    first = resolve(pair)
    file = pair / "embedding" / "config.json"
    os.utime(file, ns=(0, 0))
    assert resolve(pair).path == first.path
    config = json.loads(file.read_text(encoding="utf-8"))
    config["text_config"]["rope_theta"] = 123_456.0
    file.write_text(json.dumps(config), encoding="utf-8")
    assert resolve(pair).path != first.path


def test_a_damaged_bundle_in_the_cache_is_made_again(tmp_path, monkeypatch):
    whole = resolve("tiny").path
    shutil.copytree(whole, tmp_path / "bundles" / whole.name)
    monkeypatch.setenv("QVL_CACHE_DIR", str(tmp_path))
    first = resolve("tiny")
    assert first.path == tmp_path / "bundles" / whole.name
    for graph in (first.path / "onnx").iterdir():
        graph.unlink()
    again = resolve("tiny")
    assert again.path == first.path
    assert any((again.path / "onnx").iterdir())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("embedding", "reranker"),
        ("My-Embedding-2B", "My-Reranker-2B"),
        ("my-embedding-2b", "my-reranker-2b"),
        ("qwen-embedder", "qwen-reranker"),
    ],
)
def test_siblings_are_found_from_either_side(pair, one, other):
    (pair / "embedding").rename(pair / one)
    (pair / "reranker").rename(pair / other)
    for named in (one, other):
        found = find_checkpoints(pair / named)
        assert {role: checkpoint.path.name for role, checkpoint in found.items()} == {
            "embedder": one,
            "reranker": other,
        }


def test_a_lone_checkpoint_is_a_bundle_of_one(cache, pair):
    shutil.rmtree(pair / "reranker")
    assert set(find_checkpoints(pair)) == {"embedder"}
    assert set(find_checkpoints(pair / "embedding")) == {"embedder"}
    bundle = resolve(pair / "embedding")
    with pytest.raises(BundleError, match="holds no reranker"):
        bundle.part("reranker")


def test_relative_and_home_folders(pair, monkeypatch):
    monkeypatch.chdir(pair)
    assert set(find_checkpoints("embedding")) == set(find_checkpoints(".")) == {"embedder", "reranker"}
    monkeypatch.setenv("HOME", str(pair))
    monkeypatch.setenv("USERPROFILE", str(pair))
    assert set(find_checkpoints("~/reranker")) == {"embedder", "reranker"}


@pytest.mark.parametrize(
    "name", ["huge", "", " ", "no/such/folder/at/all", "/no/such/folder", "a b/c", "2B ", "~nobody-here"]
)
def test_unknown_names_say_what_is_known(name):
    with pytest.raises(ModelNotFoundError, match=r"no such model\. Give tiny, 2b, 8b, a Hugging Face id"):
        find_checkpoints(name)


def test_a_folder_of_something_else_is_named(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"neither a checkpoint \(config\.json\) nor a bundle"):
        find_checkpoints(tmp_path)


@pytest.fixture
def hub_cache(tmp_path, tiny_folder, monkeypatch):
    """Puts repositories into a Hugging Face cache, as a download leaves it; the network is forbidden."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def put(name, part):
        root = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        shutil.copytree(tiny_folder / part, root / "snapshots" / COMMIT)
        (root / "refs").mkdir()
        (root / "refs" / "main").write_text(COMMIT, encoding="utf-8")

    return put


@pytest.mark.parametrize(
    "model",
    ["2b", "2B", "2b@main", f"2b@{COMMIT}", "Qwen/Qwen3-VL-Embedding-2B", "Qwen/Qwen3-VL-Reranker-2B"],
)
def test_one_name_on_the_hub_stands_for_the_pair(model, cache, hub_cache):
    names = {"embedder": "Qwen/Qwen3-VL-Embedding-2B", "reranker": "Qwen/Qwen3-VL-Reranker-2B"}
    hub_cache(names["embedder"], "embedding")
    hub_cache(names["reranker"], "reranker")
    found = find_checkpoints(model)
    assert {role: checkpoint.name for role, checkpoint in found.items()} == names
    assert {checkpoint.revision for checkpoint in found.values()} == {COMMIT}
    alone = find_checkpoints(model, pair=False)
    assert [checkpoint.name for checkpoint in alone.values()] == [
        names["reranker" if "Reranker" in model else "embedder"]
    ]


def test_a_model_without_a_sibling_stands_alone(cache, hub_cache):
    hub_cache("someone/tuned", "embedding")
    assert set(find_checkpoints("someone/tuned")) == {"embedder"}


def test_offline_without_the_files_says_so(cache, hub_cache):
    hub_cache("someone/else", "embedding")
    with pytest.raises(
        ModelError, match=r"Qwen/Qwen3-VL-Embedding-8B: is not downloaded, and HF_HUB_OFFLINE"
    ):
        find_checkpoints("8b")


def test_a_folder_as_modelscope_lays_it_out(tmp_path, tiny_folder):
    """Below ~/.cache/modelscope/hub/models, with files of its own and `___` where a name has a dot."""
    owner = tmp_path / "modelscope" / "hub" / "models" / "Qwen"
    for name, part in (("Embedding", "embedding"), ("Reranker", "reranker")):
        folder = owner / f"Qwen3___5-VL-{name}-2B"
        shutil.copytree(tiny_folder / part, folder)
        (folder / "configuration.json").write_text('{"framework": "pytorch"}', encoding="utf-8")
        (folder / ".msc").write_bytes(b"\x80\x04]")
        (folder / ".mv").write_text("Revision:master,CreatedAt:1", encoding="utf-8")
    for named in ("Embedding", "Reranker"):
        found = find_checkpoints(owner / f"Qwen3___5-VL-{named}-2B")
        assert {role: checkpoint.path.name for role, checkpoint in found.items()} == {
            "embedder": "Qwen3___5-VL-Embedding-2B",
            "reranker": "Qwen3___5-VL-Reranker-2B",
        }


def test_a_cache_that_cannot_be_made_is_named_with_the_way_out(cache, pair):
    cache.write_bytes(b"a file where the folder should be")
    with pytest.raises(ModelError, match=rf"{cache}.*QVL_CACHE_DIR"):
        resolve(pair / "embedding")


def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(cache, pair, monkeypatch):
    (cache / "bundles").mkdir(parents=True)
    monkeypatch.setattr(bundle_cache.os, "access", lambda *_: False)  # a fake: whoever runs tests may be root
    with pytest.raises(ModelError) as caught:
        resolve(pair / "embedding")
    assert str(caught.value) == (
        f"{cache / 'bundles'}: the model cache cannot be written. "
        "Get access, or choose another folder: QVL_CACHE_DIR=/some/folder"
    )


def test_no_exporter_is_an_error_with_a_remedy(cache, pair, monkeypatch):
    monkeypatch.setattr(bundle_cache, "EXPORTER", "none-of-that-name")
    with pytest.raises(ModelError, match="No exporter is installed"):
        export_once({"embedder": Checkpoint(pair / "embedding", "x")}, precision="fp32")


@pytest.fixture
def fake_exporter(monkeypatch):
    """Makes a bundle of float32 whatever is asked for, except at precisions that it says stray too far."""
    whole = resolve("tiny").path
    asked = []

    def export(checkpoints, folder, *, names, precision, progress=None):
        asked.append(precision)
        if precision in ("fp16", "int8-weight"):
            raise ParityError(f"{precision}: too far")
        shutil.copytree(whole, folder)

    monkeypatch.setattr(bundle_cache, "_exporter", lambda: export)
    return asked


def test_a_precision_that_strays_is_left_for_the_next_and_not_tried_again(
    monkeypatch, tmp_path, fake_exporter
):
    monkeypatch.setenv("QVL_CACHE_DIR", str(tmp_path / "cache"))
    told = []
    first = resolve("tiny", device="cuda", progress=lambda step, part: told.append(step))
    assert fake_exporter == ["fp16", "int8-weight", "int4"]
    assert "fp16 strays too far from this model; another precision is tried." in told
    assert resolve("tiny", device="cuda").path == first.path
    assert fake_exporter == ["fp16", "int8-weight", "int4"]
    with pytest.raises(ParityError, match="fp16: too far"):
        resolve("tiny", device="cuda", precision="fp16")


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    """A copy of the shipped recipes, from which names in the cache are made: edit it as a release would."""
    folder = tmp_path / "recipes"
    shutil.copytree(bundle_cache._recipes(), folder)
    monkeypatch.setattr(bundle_cache, "_recipes", lambda: folder)
    return folder


def test_a_recipe_that_changed_is_exported_anew_and_the_old_export_is_told(
    recipes, fake_exporter, monkeypatch, tmp_path
):
    monkeypatch.setenv("QVL_CACHE_DIR", str(tmp_path / "cache"))
    told = []
    first = resolve("tiny", precision="nf4", progress=lambda step, _: told.append(step))
    assert not [step for step in told if "differently" in step]
    assert bundle_cache.outdated_bundles() == []
    recipe = recipes / "nf4.toml"
    recipe.write_text("# said otherwise\n" + recipe.read_text().replace('about = "', 'about = "Now: '))
    assert resolve("tiny", precision="nf4").path == first.path  # nothing that is made of it changed

    recipe.write_text(recipe.read_text() + "\n[tolerance]\nmax_abs_diff = 0.5\nmin_cosine = 0.5\n")
    checkpoints = find_checkpoints("tiny")
    assert not bundle_cache.was_exported(checkpoints, precision="nf4")
    second = resolve("tiny", precision="nf4", progress=lambda step, _: told.append(step))
    assert second.path != first.path
    news = [step for step in told if "differently" in step]
    assert len(news) == 1
    assert "This version of qvl-local makes nf4 differently" in news[0]
    assert str(first.path) in news[0]
    assert "doctor --clean" in news[0]
    # Other precisions are what they were, and the old export serves whoever names it.
    assert resolve(first.path).path == first.path
    assert [old.folder for old in bundle_cache.outdated_bundles()] == [first.path]
    told.clear()
    assert resolve("tiny", precision="nf4", progress=lambda step, _: told.append(step)).path == second.path
    assert told == []
    for old in bundle_cache.outdated_bundles():
        assert old.size > 10_000_000
        bundle_cache.remove_outdated(old)
    assert not first.path.exists()
    assert [path.name for path in (tmp_path / "cache" / "bundles").iterdir()] == [second.path.name]


def test_an_export_from_before_recipes_counted_is_told_and_outdated(fake_exporter, monkeypatch, tmp_path):
    monkeypatch.setenv("QVL_CACHE_DIR", str(tmp_path / "cache"))
    bundle = resolve("tiny")
    checkpoints = find_checkpoints("tiny")
    name = f"tiny-embedding-fp32-{bundle_cache._digest_of_format_2(checkpoints, 'fp32')}"
    old = bundle.path.rename(bundle.path.with_name(name))
    told = []
    assert resolve("tiny", progress=lambda step, _: told.append(step)).path == bundle.path
    assert [step for step in told if str(old) in step]
    assert [one.folder for one in bundle_cache.outdated_bundles()] == [old]


def test_what_is_not_a_bundle_of_ours_is_not_outdated(cache):
    assert bundle_cache.outdated_bundles() == []  # no cache yet
    for name in ("mine", "tiny-fp32-0123456789abcdef-01234567", ".tiny-fp32-0123456789abcdef.tmp-01234567"):
        (cache / "bundles" / name).mkdir(parents=True)
    (cache / "bundles" / "mine" / "qvl.json").write_text("{}")
    assert bundle_cache.outdated_bundles() == []


def test_the_card_and_the_shapes_decide(monkeypatch):
    card = hardware.Gpu("fake card", 24_000_000_000, None, None, None)
    monkeypatch.setattr(hardware, "read_gpus", lambda: (card,))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(resolve_module, "load_config", lambda _folder: published_config("8b"))
    tiny = find_checkpoints("tiny")
    assert recommended_precisions(tiny, device="cuda") == ["int8-weight", "int4", "nf4", "fp16"]
    monkeypatch.setattr(hardware, "memory_bytes", lambda: 16_000_000_000)
    assert recommended_precisions(tiny, device="cpu") == ["nf4", "int8", "int8-weight", "int4"]


def test_a_failed_export_leaves_nothing_behind(cache, pair):
    (pair / "embedding" / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ModelError):
        resolve(pair)
    left = [path for path in (cache / "bundles").rglob("*") if path.is_file() and "lock" not in path.name]
    assert left == []
