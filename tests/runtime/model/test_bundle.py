"""Manifests of real bundles, whole and damaged."""

import json
import shutil
from dataclasses import replace

import pytest
from qvl_local.runtime.errors import BundleError
from qvl_local.runtime.model.bundle import MANIFEST, Bundle, open_bundle, verify_files
from qvl_local.runtime.model.encoder import open_table
from qvl_local.runtime.model.resolve import resolve


@pytest.fixture
def folder(tmp_path):
    """A copy of tiny's bundle, to be damaged."""
    shutil.copytree(resolve("tiny").path, tmp_path / "bundle")
    return tmp_path / "bundle"


def edit(folder, change):
    raw = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    change(raw)
    (folder / MANIFEST).write_text(json.dumps(raw), encoding="utf-8")


def test_a_manifest_survives_being_written_again(folder):
    manifest = open_bundle(folder).manifest
    (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    assert open_bundle(folder).manifest == manifest
    assert verify_files(open_bundle(folder)) == []


def test_changed_bytes_are_found(folder):
    bundle = open_bundle(folder)
    table = bundle.file(bundle.part("embedder").table.file)
    data = bytearray(table.read_bytes())
    data[100] ^= 1
    table.write_bytes(bytes(data))
    seen = []
    assert verify_files(bundle, progress=seen.append) == [
        f"{bundle.part('embedder').table.file}: content differs from the manifest"
    ]
    assert set(seen) == set(bundle.manifest.files)


def test_missing_and_shortened_files_are_named(folder):
    bundle = open_bundle(folder)
    table = bundle.file(bundle.part("embedder").table.file)
    table.write_bytes(table.read_bytes()[:-4])
    with pytest.raises(BundleError, match=r"bytes instead of .* Export the bundle again"):
        open_bundle(folder)
    with pytest.raises(BundleError, match="cannot be mapped"):
        open_table(bundle, "embedder")
    table.unlink()
    with pytest.raises(BundleError, match=r"missing, but qvl\.json lists it"):
        open_bundle(folder)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", "C:/x", "a\\b"])
def test_paths_that_leave_the_bundle_are_refused(folder, name):
    edit(folder, lambda raw: raw["files"].update({name: {"size": 1, "sha256": "0"}}))
    with pytest.raises(BundleError, match="lies outside the bundle"):
        open_bundle(folder)


@pytest.mark.parametrize("key", ["vision", "decoder", "head"])
def test_graphs_that_are_not_listed_are_refused(folder, key):
    edit(folder, lambda raw: raw["parts"]["reranker"].update({key: "../other.onnx"}))
    with pytest.raises(BundleError, match="without listing it among its files"):
        open_bundle(folder)


def test_a_folder_of_settings_outside_is_refused(folder):
    edit(folder, lambda raw: raw["parts"]["reranker"].update({"folder": "../elsewhere"}))
    with pytest.raises(BundleError, match="lies outside the bundle"):
        open_bundle(folder)


def test_newer_formats_and_damaged_manifests_are_named(folder):
    edit(folder, lambda raw: raw.update({"format": 99}))
    with pytest.raises(BundleError, match="has format 99, this version reads up to"):
        open_bundle(folder)
    edit(folder, lambda raw: raw.update({"format": 1, "parts": {"embedder": {}}}))
    with pytest.raises(BundleError, match="is damaged"):
        open_bundle(folder)
    for content in ("[]", "{}", "{"):
        (folder / MANIFEST).write_text(content, encoding="utf-8")
        with pytest.raises(BundleError):
            open_bundle(folder)
    with pytest.raises(BundleError, match="so it is not a bundle"):
        open_bundle(folder.parent)


def test_the_revision_follows_the_weights(folder):
    before = open_bundle(folder).revision
    edit(folder, lambda raw: raw["parts"]["embedder"]["source"].update({"name": "another name for it"}))
    assert before == open_bundle(folder).revision
    edit(folder, lambda raw: raw["files"]["tokenizer.json"].update({"sha256": "1" * 64}))
    retokenized = open_bundle(folder).revision
    assert retokenized != before
    edit(folder, lambda raw: raw["parts"]["embedder"]["source"].update({"sha256": "0" * 64}))
    assert open_bundle(folder).revision not in (before, retokenized)


def test_the_revision_follows_how_the_weights_are_stored(folder):
    bundle = open_bundle(folder)
    part = bundle.part("embedder")
    parts = [
        part,
        replace(part, vision_precision="fp16"),
        replace(part, decoder_precision="fp16"),
        replace(part, table=replace(part.table, dtype="float16")),
        replace(part, exceptions={"visual.merger.linear_fc1": "fp16"}),
        replace(part, exceptions={"visual.merger.linear_fc1": "int8"}),
        replace(part, calibration="sample world"),
        replace(part, calibration="8 own pictures"),
    ]
    manifests = [replace(bundle.manifest, parts={"embedder": one}) for one in parts]
    manifests.append(replace(bundle.manifest, flavour="portable"))
    assert len({Bundle(folder, manifest).revision for manifest in manifests}) == len(manifests)
    named = replace(part, head="token_head.npy", dims=64)  # what shapes no vector of full width
    assert Bundle(folder, replace(bundle.manifest, parts={"embedder": named})).revision == bundle.revision
