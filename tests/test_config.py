"""Settings: the published recipe by default, and one clear sentence for everything that is not a setting."""

from dataclasses import is_dataclass, replace
from pathlib import Path

import pytest

from sptskm.common.settings import declared
from sptskm.config import SMIN_DEFAULTS, SSIN_DEFAULTS, STREAMS, Config, ConfigError, Final, Sampling, Train
from sptskm.configfile import (
    CHECKOUT,
    apply_overrides,
    changed_keys,
    find_file,
    find_folder,
    from_dict,
    load,
    load_final,
    merge,
    to_dict,
    to_yaml,
)


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
    assert load(written(tmp_path, f"stream: {stream}\n")) == STREAMS[stream].defaults


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    config = load(written(tmp_path, "stream: ssin\nmodel: {variant: 3d, depths: [1, 1, 1, 1]}\nrun: runs/a\n"))
    model = replace(SSIN_DEFAULTS.model, variant="3d", depths=(1, 1, 1, 1))
    assert config == replace(SSIN_DEFAULTS, model=model, run="runs/a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "optim: {learning_rate: 0.1}",
            r"unknown key optim\.learning_rate \(legal here: algorithm, clip, ema, gamma",
        ),
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
        ("model: {depths: [1, 2]}", r"model.depths is \[1, 2\], wanted four numbers, one for each stage"),
        ("model: {depths: [1, 1, 1, 100000]}", "model.depths is 100000, wanted at most 200"),
        ("model: {mask_depths: [1, 1, 0, 1]}", "model.mask_depths is 0, wanted at least 1"),
        ("optim: {milestones: [-1, 3]}", "optim.milestones is -1, wanted at least 0"),
        ("train: {epochs: 0}", "train.epochs is 0, wanted at least 1"),
        ("data: {held_out: 1}", "data.held_out is 1.0, wanted at least 0 and less than 1"),
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
        ("- a\n- b", "wanted `key: value` lines, found a list"),
        ("stream: [ssin", "not valid YAML"),
        ("", "stream is None"),
        ("stream: [ssin]", r"stream is \['ssin'\], wanted one of"),
        ("stream: ssin\ndata: {root: 2020-99-99}", r"not valid YAML \(month must be in 1..12\)"),
        ("a: \0", "line 1 holds a zero byte"),
        ("stream: !!bool maybe", "not valid YAML"),
        ("stream: " + 500 * "[", "nested too deeply"),
        ("stream: ssin\n a: b: c", r"not valid YAML \(mapping values are not allowed here, line 2\)"),
    ],
)
def test_a_file_that_is_no_configuration_says_so_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        load(written(tmp_path, text))
    assert str(refused.value).startswith(f"{tmp_path / 'run.yaml'}: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("rows", ["[0, 14, 40]", "[0, 13]", "[14, 14]", "[40, 64, 0, 14]", "[0, 66]"])
def test_bands_of_rows_that_silhouettes_do_not_have_are_refused(tmp_path: Path, rows: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.static_rows is \{rows[:-1]}\], wanted a first row and an end"):
        load(written(tmp_path, f"stream: gait\nmodel: {{static_rows: {rows}}}\n"))


@pytest.mark.parametrize("content", [b"\xff\xfes", "stream: ssin  # é".encode("latin-1"), b"PK\x03\x04\x93\xe8"])
def test_a_file_that_is_not_text_says_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"run\.yaml: line 1 .*, wanted text in UTF-8"):
        load(tmp_path / "run.yaml")


def test_text_is_read_as_utf_8_wherever_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes("stream: ssin\nrun: läufe\n".encode())
    read = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda file, encoding="ascii": read(file, encoding=encoding))
    assert load(path).run == "läufe"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("stream: ssin\ntrain: {epochs: 3}\ntrain: {seed: 2}\n", "train stands twice, line 3"),
        ("stream: ssin\ntrain:\n  seed: 3\n  seed: 3\n", "seed stands twice, line 4"),
    ],
)
def test_a_key_that_stands_twice_is_refused_and_not_lost(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=rf"run\.yaml: .*{told}"):
        load(written(tmp_path, text))


def test_what_yaml_takes_over_from_elsewhere_may_be_changed(tmp_path: Path) -> None:
    text = "stream: ssin\nloss: {<<: {margin: 0.5, identity: 0.25}, margin: 0.75}\n"
    loss = load(written(tmp_path, text)).loss
    assert (loss.margin, loss.identity) == (0.75, 0.25)


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


def test_whole_numbers_keep_all_their_digits(tmp_path: Path) -> None:
    large = 2**53 + 1
    for seed in (large, f"'{large}'"):
        assert load(written(tmp_path, f"stream: ssin\ntrain: {{seed: {seed}}}\n")).train.seed == large
    assert apply_overrides(SSIN_DEFAULTS, [f"train.seed={large}"]).train.seed == large
    with pytest.raises(ConfigError, match="wanted float"):
        apply_overrides(SSIN_DEFAULTS, [f"optim.lr=1{400 * '0'}"])


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.seed=4", "train={epochs: 3}"],
        ["train={epochs: 3}", "train.seed=4"],
        ["train={epochs: 3}", "train={seed: 4}"],
        ["train.seed=5", "train={epochs: 3, seed: 6}", "train.seed=4"],
    ],
)
def test_a_section_as_an_override_changes_only_what_it_names(overrides: list[str]) -> None:
    config = apply_overrides(SSIN_DEFAULTS, overrides)
    assert (config.train.seed, config.train.epochs) == (4, 3)


@pytest.mark.parametrize("path", ["2024-05-01", "2024", "a: b", "[set]", "a #1/own", "null", "", "{", "C:\\x"])
def test_where_text_is_wanted_an_override_stands_as_it_is(path: str) -> None:
    assert apply_overrides(SSIN_DEFAULTS, [f"data.root={path}"]).data.root == path
    assert apply_overrides(Final(), [f"protocol={path}"]).protocol == path
    assert apply_overrides(SSIN_DEFAULTS, [f'run="{path.encode("unicode_escape").decode()}"']).run == path


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
        ("optim.lr={}", r"optim\.lr is \{\}, wanted float"),
        ("train={epochs: 3, epochs: 4}", "not valid YAML .epochs stands twice"),
        ("data.root='a", "the value is not valid YAML"),
        ("stream=smin", r"unknown key stream \(legal here: clips"),
        ("=1", "unknown key "),
        ('data.root="a\\0b"', r"data\.root is 'a.x00b', wanted it without zero bytes"),
        ('run="\\0"', r"run is '.x00', wanted it without zero bytes"),
    ],
)
def test_a_bad_override_is_one_sentence(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        apply_overrides(SSIN_DEFAULTS, [override])


@pytest.mark.parametrize(
    "override",
    [
        f"train.seed={10**20}",
        f"optim.milestones=[1,{10**20}]",
        f"model.depths=[{10**20}]",
        "train.threads=100000",
        "clips.height=1000000000",
        "model.width=10000000",
        "sampling.rounds=1000000000000000",
        "optim.lr=1e300",
        "loss.identity=-1e300",
    ],
)
def test_a_number_beyond_what_memory_or_numpy_holds_is_refused_with_its_bound(override: str) -> None:
    key = override.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"{key} is .*, wanted at most [0-9]"):
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
    with pytest.raises(ConfigError, match=r"unknown key final.weigth; did you mean weight\?"):
        load_final(path, ["weigth=1"])


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("weight=1.5", "wanted at most 1$"),
        ("weight=-1", "wanted at least 0$"),
        ("weights={ssin:0.4, smin:0.6}", "weights has None for 'ssin:0.4', wanted .* with a blank behind each colon"),
        ("weights={ssin: much, smin: 0.6}", "weights has 'much' for 'ssin', wanted a number of each name$"),
        ("weight_step=0", "more than 0"),
        ("weight_step=0.3", r"^final.weight_step is 0\.3, wanted one that divides 1, such as 0\.3333333333$"),
        ("weight_step=0.7", "such as 1$"),
    ],
)
def test_a_fusion_weight_or_grid_that_cannot_be_is_refused(tmp_path: Path, override: str, wanted: str) -> None:
    with pytest.raises(ConfigError, match=wanted):
        load_final(tmp_path / "nowhere.yaml", [override])


@pytest.mark.parametrize("step", [1, 0.05, 0.1, 0.02, 0.01, 0.3333333333, 1 / 7])
def test_a_grid_that_divides_1_is_taken_whatever_its_rounding(step: float) -> None:
    assert Final(weight_step=step).weight_step == step


def test_changed_keys_names_what_may_not_change_on_resume() -> None:
    before = to_dict(SSIN_DEFAULTS)
    overrides = ["optim.lr=1", "sampling.rounds=2", "run=elsewhere", "data.root=moved", "train.epochs=2000"]
    after = to_dict(apply_overrides(SSIN_DEFAULTS, overrides))
    assert changed_keys(before, after) == ["optim.lr: 0.0003 -> 1.0", "sampling.rounds: 1 -> 2"]
    assert changed_keys(before, before) == []
    falling, longer = (
        to_dict(apply_overrides(SSIN_DEFAULTS, ["optim.schedule=cosine", f"train.epochs={epochs}"]))
        for epochs in (2, 3)
    )
    assert changed_keys(falling, longer) == ["train.epochs: 2 -> 3, on which a cosine schedule depends"]


def test_changed_keys_sees_the_other_stream_and_settings_of_older_versions() -> None:
    before, after = to_dict(SSIN_DEFAULTS), to_dict(SMIN_DEFAULTS)
    assert "stream: 'ssin' -> 'smin'" in changed_keys(before, after)
    older = {**before, "optim": {**before["optim"], "momentum": 0.9}}
    assert changed_keys(older, before) == ["optim.momentum: 0.9 -> None"]


def test_a_run_of_before_with_ingredients_that_are_gone_opens_if_they_were_off() -> None:
    now = to_dict(SSIN_DEFAULTS)
    clips, model = {**now["clips"], "jitter": 0.0, "grey": 0.0}, {**now["model"], "bnneck": False, "mask_parts": []}
    off = {**now, "clips": clips, "model": model, "loss": {**now["loss"], "clothes": 0.0}}
    assert from_dict(off) == SSIN_DEFAULTS
    assert changed_keys(off, now) == []
    on = {**off, "clips": {**clips, "jitter": 0.3}}
    with pytest.raises(
        ConfigError, match=r"clips\.jitter is 0\.3, wanted it left out: this version has no such setting"
    ):
        from_dict(on)
    assert changed_keys(on, now) == ["clips.jitter: 0.3 -> None"]


def test_merge_leaves_the_original_alone() -> None:
    assert merge(SSIN_DEFAULTS, {"sampling": {"identities": 4}}).sampling == Sampling(identities=4)
    assert SSIN_DEFAULTS.sampling.identities == 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["rerank=true", "normalisation=rank"], "rerank with normalisation rank, which is no distance of a pair"),
        (["rerank_gigabytes=0"], r"rerank_gigabytes is 0\.0, wanted more than 0"),
    ],
)
def test_settings_of_the_final_job_that_exclude_each_other_are_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        apply_overrides(Final(), settings)


def test_a_final_yaml_of_before_opens_and_weights_by_camera_asked_for_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "final.yaml"
    path.write_text("camera_weights: false\nweight_step: 0.1\n")
    assert load_final(path) == Final(weight_step=0.1)
    path.write_text("camera_weights: true\n")
    with pytest.raises(ConfigError, match=r"final\.yaml: camera_weights is True, wanted it left out: this version has"):
        load_final(path)
    with pytest.raises(ConfigError, match="camera_weights is True, wanted it left out"):
        apply_overrides(Final(), ["camera_weights=true"])


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("lr=0.1", "unknown key lr; did you mean optim.lr?"),
        ("epoch=3", "unknown key epoch; did you mean train.epochs?"),
        ("train.lr=0.1", "unknown key train.lr; did you mean optim.lr?"),
        ("margin=0.1", "unknown key margin; did you mean loss.margin?"),
        ("frames=3", "unknown key frames; did you mean clips.frames?"),
        ("embeding_dim=3", "unknown key embeding_dim; did you mean model.embedding_dim?"),
        ("optin.lr=3", "unknown key optin; did you mean optim?"),
        ("train.epoch=3", "unknown key train.epoch; did you mean epochs?"),
        ("xyz=3", "unknown key xyz (legal here:"),
    ],
)
def test_a_key_without_its_section_is_answered_with_the_whole_name(override: str, meant: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_overrides(SSIN_DEFAULTS, [override])
    assert str(caught.value).startswith(meant)


def test_configurations_of_the_checkout_are_found_from_every_folder_and_those_here_go_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for typed in ("configs/demo", "demo"):
        assert find_folder(Path(typed)) == CHECKOUT / "configs/demo"
    assert find_file(Path("configs/demo/ssin.yaml")) == CHECKOUT / "configs/demo/ssin.yaml"
    assert find_file(Path("demo/ssin.yaml")) == CHECKOUT / "configs/demo/ssin.yaml"
    Path("demo").mkdir()
    assert find_folder(Path("demo")) == CHECKOUT / "configs/demo", "a folder of something else"
    Path("demo/smin.yaml").touch()
    assert find_folder(Path("demo")) == Path("demo")


def test_what_is_no_folder_of_configurations_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as missing:
        find_folder(Path("mine"))
    for place in (tmp_path / "mine", tmp_path / "configs/mine", CHECKOUT / "mine", CHECKOUT / "configs/mine"):
        assert str(place) in str(missing.value)
    Path("ssin.yaml").touch()
    with pytest.raises(ConfigError, match=rf"ssin\.yaml is a file, wanted a folder that holds .*, such as {tmp_path}$"):
        find_folder(Path("ssin.yaml"))
    with pytest.raises(ConfigError, match=r"configs/demo is a folder, wanted a file, such as .*\.yaml$"):
        find_file(Path("configs/demo"))


def test_everything_that_is_wrong_is_told_at_once_each_with_its_name(tmp_path: Path) -> None:
    text = "stream: ssin\noptims: {lr: 1}\ntrain: {epochs: true, seed: -1}\noptim: {lr: .nan, milestone: 3}\nrun: 3\n"
    with pytest.raises(ConfigError) as caught:
        load(path := written(tmp_path, text))
    sentences = str(caught.value).removeprefix(f"{path}: ").split("; ")
    beginnings = (
        "unknown key optims", "did you mean optim?", "train.epochs is True, wanted int",
        "train.seed is -1, wanted at least 0", "unknown key optim.milestone", "did you mean milestones?",
        "optim.lr is nan, wanted float", "run is 3, wanted str",
    )  # fmt: skip
    assert len(sentences) == len(beginnings)
    assert all(map(str.startswith, sentences, beginnings))
    with pytest.raises(ConfigError, match=r"^weight_step is 0\.3, .*; rerank with normalisation rank"):
        Final(weight_step=0.3, rerank=True, normalisation="rank")


def test_what_is_made_in_the_program_is_checked_as_what_a_file_says() -> None:
    with pytest.raises(ConfigError, match=r"^epochs is True, wanted int$"):
        Train(epochs=True)
    with pytest.raises(ConfigError, match=r"^identities is 0, wanted at least 1; tracklets is 'many', wanted int$"):
        replace(Sampling(), identities=0, tracklets="many")
    with pytest.raises(ConfigError, match=r"^unknown key epoch \(legal here: "):
        Train(epoch=3)  # type: ignore[call-arg]


def test_every_section_is_checked_and_every_default_could_be_given() -> None:
    for spec in STREAMS.values():
        config = spec.defaults
        for section in (config, Final(), *filter(is_dataclass, vars(config).values())):
            assert declared(type(section)).keys() == vars(section).keys(), "wanted @settings above the class"
            assert type(section)(**vars(section)) == section
