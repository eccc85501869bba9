"""Settings: the published recipe by default, and one clear sentence for everything that is not a setting."""

from dataclasses import replace
from pathlib import Path

import pytest

from sptskm.config import DEFAULTS, SMIN_DEFAULTS, SSIN_DEFAULTS, Config, ConfigError, Final, Sampling
from sptskm.configfile import apply_overrides, changed_keys, from_dict, load, load_final, merge, to_dict, to_yaml


def written(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text)
    return path


def test_ssin_defaults_are_the_published_recipe() -> None:
    config = SSIN_DEFAULTS
    assert (config.optim.algorithm, config.optim.lr, config.optim.weight_decay) == ("adam", 3e-4, 5e-4)
    assert (config.optim.gamma, config.optim.milestones) == (0.1, (200, 400, 600, 800))
    assert (config.train.epochs, config.sampling.identities, config.sampling.tracklets) == (1000, 8, 4)
    assert (config.clips.frames, config.clips.height, config.clips.width) == (4, 256, 128)
    loss = config.loss
    assert (loss.identity, loss.image, loss.mask, loss.glob, loss.triplet) == (0.5, 0.4, 0.1, 0.5, 0.5)
    assert (loss.margin, loss.smoothing, config.model.dropout) == (0.3, 0.1, 0.5)
    model = config.model
    assert (model.variant, model.depths, model.mask_depths) == ("2d", (3, 4, 6, 3), (1, 1, 1, 1))
    assert (model.width, model.embedding_dim, model.pooling) == (64, 1024, "max")


def test_smin_defaults_are_the_published_recipe_on_the_correct_graph() -> None:
    config = SMIN_DEFAULTS
    assert (config.optim.algorithm, config.optim.lr, config.optim.weight_decay) == ("sgd", 0.1, 1e-4)
    assert (config.optim.gamma, config.optim.milestones, config.train.epochs) == (0.1, (50, 100), 200)
    assert config.sampling.identities * config.sampling.tracklets == 256
    assert (config.clips.frames, config.clips.test_frames, config.clips.random_move) == (28, 30, True)
    loss = config.loss
    assert (loss.identity, loss.triplet, loss.margin, loss.smoothing) == (0.8, 0.2, 0.3, 0.1)
    assert (config.model.graph, config.model.dropout, config.train.validate_every) == ("spatial", 0.5, 5)


@pytest.mark.parametrize("stream", ["ssin", "smin"])
def test_a_file_that_names_only_the_stream_gives_its_defaults(tmp_path: Path, stream: str) -> None:
    assert load(written(tmp_path, f"stream: {stream}\n")) == DEFAULTS[stream]


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    config = load(written(tmp_path, "stream: ssin\nmodel: {variant: 3d, depths: [1, 1, 1, 1]}\nrun: runs/a\n"))
    model = replace(SSIN_DEFAULTS.model, variant="3d", depths=(1, 1, 1, 1))
    assert config == replace(SSIN_DEFAULTS, model=model, run="runs/a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim: {learning_rate: 0.1}", r"unknown key optim\.learning_rate \(legal here: algorithm, gamma, lr"),
        ("optim: {milestone: [3]}", r"unknown key optim\.milestone; did you mean milestones\?"),
        ("optims: {lr: 1}", r"unknown key optims; did you mean optim\?"),
        ("clips: {test_frames: 3}", r"unknown key clips\.test_frames"),
        ("train: 3", r"train is a section, wanted train\.key=value, found 3"),
        ("train: {epochs: many}", "train.epochs is 'many', wanted int"),
        ("train: {epochs: 1.5}", "train.epochs is 1.5, wanted int"),
        ("train: {epochs: true}", "train.epochs is True, wanted int"),
        ("train: {epochs: .inf}", "train.epochs is inf, wanted int"),
        ("train: {epochs: }", "train.epochs is None, wanted int"),
        ("optim: {lr: .nan}", "optim.lr is nan, wanted float"),
        ("train: {compile: 1}", "train.compile is 1, wanted bool"),
        ("data: {root: 3}", "data.root is 3, wanted str"),
        ("model: {depths: [1, two]}", "model.depths is 'two', wanted int"),
        ("model: {variant: 4d}", "model.variant is '4d', wanted one of 2d, 3d"),
        ("train: {epochs: 0}", "train.epochs is 0, wanted at least 1"),
        ("data: {held_out: 1}", "data.held_out is 1.0, wanted a share: 0 <= data.held_out < 1"),
        ("optim: {lr: 0}", "optim.lr is 0.0, wanted more than 0"),
        ("sampling: {identities: 1}", "sampling.identities is 1; a triplet needs at least 2"),
    ],
)
def test_what_cannot_be_used_is_one_sentence_with_the_file_and_the_key(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, f"stream: ssin\n{text}\n")
    with pytest.raises(ConfigError, match=f"^{path}: {message}"):
        load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {width: 8}", "stream is None, wanted one of"),
        ("stream: sssin", "stream is 'sssin', wanted one of"),
        ("- a\n- b", "wanted `section: {key: value}`, found a list"),
        ("stream: [ssin", "not valid YAML"),
        ("", "stream is None"),
    ],
)
def test_a_file_that_is_no_configuration_says_so(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(written(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml: no such file"):
        load(tmp_path / "nowhere.yaml")


def test_a_yaml_tag_executes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not valid YAML"):
        load(written(tmp_path, f"stream: !!python/object/apply:os.mkdir ['{tmp_path}/executed']\n"))
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


def test_yaml_reads_1e_minus_4_as_text_and_it_is_still_a_number(tmp_path: Path) -> None:
    config = load(written(tmp_path, "stream: ssin\noptim: {lr: 1e-4, weight_decay: '5E-5'}\ntrain: {epochs: '7'}\n"))
    assert (config.optim.lr, config.optim.weight_decay, config.train.epochs) == (1e-4, 5e-5, 7)
    assert type(config.train.epochs) is int


def test_whole_numbers_become_floats_where_floats_are_wanted() -> None:
    config = apply_overrides(SSIN_DEFAULTS, ["loss.margin=1"])
    assert type(config.loss.margin) is float


def test_overrides_are_applied_in_order_over_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "stream: smin\noptim: {lr: 0.5}\n")
    overrides = ["optim.lr=1e-3", "optim.milestones=[1, 2]", "run=runs/x=y", "optim.lr=2e-3", "model.graph=published"]
    config = load(path, overrides)
    assert (config.optim.lr, config.optim.milestones) == (2e-3, (1, 2))
    assert (config.run, config.model.graph) == ("runs/x=y", "published")


def test_a_single_value_is_a_list_of_one() -> None:
    assert apply_overrides(SSIN_DEFAULTS, ["optim.milestones=5"]).optim.milestones == (5,)
    assert apply_overrides(SSIN_DEFAULTS, ["optim.milestones=[]"]).optim.milestones == ()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lr", "override 'optim.lr': wanted section.key=value"),
        ("optim.lr=[1", r"override 'optim\.lr=\[1': the value is not valid YAML"),
        ("optim.lrs=1", r"unknown key optim\.lrs; did you mean lr\?"),
        ("optim.lr.x=1", r"optim\.lr is \{'x': 1\}, wanted float"),
        ("optim=1", "optim is a section"),
        ("stream=smin", r"unknown key stream \(legal here: clips"),
        ("=1", "unknown key "),
    ],
)
def test_a_bad_override_is_one_sentence(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        apply_overrides(SSIN_DEFAULTS, [override])


def changed(config: Config) -> Config:
    return apply_overrides(
        config, ["optim.lr=1e-7", "optim.milestones=[]", "data.root='a b: c'", "model.width=16", "train.compile=true"]
    )


@pytest.mark.parametrize("config", [SSIN_DEFAULTS, SMIN_DEFAULTS, changed(SSIN_DEFAULTS), changed(SMIN_DEFAULTS)])
def test_a_configuration_survives_yaml_and_plain_values(tmp_path: Path, config: Config) -> None:
    assert load(written(tmp_path, to_yaml(config))) == config
    assert from_dict(to_dict(config)) == config


def test_the_final_job_has_defaults_a_file_and_overrides(tmp_path: Path) -> None:
    assert load_final(tmp_path / "nowhere.yaml") == Final()
    path = written(tmp_path, to_yaml(Final(weight=0.25)))
    assert load_final(path) == Final(weight=0.25)
    assert load_final(path, ["weight=null", "normalisation=minmax"]) == Final(normalisation="minmax")
    with pytest.raises(ConfigError, match=r"unknown key weigth; did you mean weight\?"):
        load_final(path, ["weigth=1"])


@pytest.mark.parametrize(("override", "wanted"), [("weight=1.5", "wanted 0"), ("weight_step=0", "more than 0")])
def test_a_fusion_weight_or_grid_that_cannot_be_is_refused(tmp_path: Path, override: str, wanted: str) -> None:
    with pytest.raises(ConfigError, match=wanted):
        load_final(tmp_path / "nowhere.yaml", [override])


def test_changed_keys_names_what_may_not_change_on_resume() -> None:
    before = to_dict(SSIN_DEFAULTS)
    overrides = ["optim.lr=1", "sampling.rounds=2", "run=elsewhere", "data.root=moved", "train.epochs=2000"]
    after = to_dict(apply_overrides(SSIN_DEFAULTS, overrides))
    assert changed_keys(before, after) == ["optim.lr: 0.0003 -> 1.0", "sampling.rounds: 1 -> 2"]
    assert changed_keys(before, before) == []


def test_changed_keys_sees_the_other_stream_and_settings_of_older_versions() -> None:
    before, after = to_dict(SSIN_DEFAULTS), to_dict(SMIN_DEFAULTS)
    assert "stream: 'ssin' -> 'smin'" in changed_keys(before, after)
    older = {**before, "optim": {**before["optim"], "momentum": 0.9}}
    assert changed_keys(older, before) == ["optim.momentum: 0.9 -> None"]


def test_merge_leaves_the_original_alone() -> None:
    assert merge(SSIN_DEFAULTS, {"sampling": {"identities": 4}}).sampling == Sampling(identities=4)
    assert SSIN_DEFAULTS.sampling.identities == 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["rerank=true", "normalisation=rank"], "rerank with normalisation rank, which is no distance of a pair"),
        (["camera_weights=true", "weight=0.4"], r"camera_weights with weight 0\.4, wanted weights that are chosen"),
        (["rerank_gigabytes=0"], r"rerank_gigabytes is 0\.0, wanted more than 0"),
    ],
)
def test_settings_of_the_final_job_that_exclude_each_other_are_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        apply_overrides(Final(), settings)
