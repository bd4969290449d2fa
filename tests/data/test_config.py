import pytest
from hydra import compose, initialize_config_dir

from data.config import DataConfig
from data.prepare import REPOSITORY

CHOICES = sorted(path.stem for path in (REPOSITORY / "configs" / "data").glob("*.yaml"))


def composed(choice, *overrides):
    with initialize_config_dir(str(REPOSITORY / "configs"), version_base="1.3"):
        return compose(f"data/{choice}", overrides=list(overrides)).data


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_is_a_valid_config(choice):
    config = DataConfig.from_mapping(composed(choice))
    assert config.splits == ("train", "val", "test")
    assert config.end_of_text


def test_the_published_cut_is_an_option_of_every_choice():
    for choice in CHOICES:
        config = DataConfig.from_mapping(composed(choice, "data/cut=published"))
        assert config.split == "characters" and not config.end_of_text
        assert config.splits == ("train", "val")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": None}, "data.source=None must be a text"),
        ({"sorce": "sample"}, "data.sorce is no option; there are source, repo"),
        ({"vocab_size": "abc"}, "data.vocab_size=abc must be a whole number, at least 1"),
        ({"vocab_size": True}, "data.vocab_size=True must be a whole number"),
        ({"vocab_size": None}, "data.vocab_size=None must be a whole number"),
        ({"max_bytes": 0}, "data.max_bytes=0 must be a whole number, at least 1"),
        ({"max_train_tokens": 1.5}, "data.max_train_tokens=1.5 must be a whole number"),
        ({"val_fraction": 1.2}, r"data.val_fraction=1.2 must be a number in \[0, 1\)"),
        ({"val_fraction": float("nan")}, "data.val_fraction=nan must be a number"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "their sum must be below 1"),
        ({"end_of_text": 1}, "data.end_of_text=1 must be true or false"),
        ({"topics": []}, "must be a list of texts, at least one"),
        ({"topics": {"a": 1}}, "must be a list of texts"),
        ({"paths": [1]}, "must be a list of texts"),
        ({"split": "words"}, "data.split=words must be one of articles, characters"),
        ({"split": "characters"}, "data.test_fraction=0.1 must be 0 with data.split=characters"),
        ({"tokenizer": "bert"}, "data.tokenizer=bert must be one of bytes, gpt2, numbers"),
    ],
)
def test_each_broken_rule_is_named(values, message):
    with pytest.raises(ValueError, match=message):
        DataConfig.from_mapping({"source": "sample"} | values)


def test_a_missing_source_is_named():
    with pytest.raises(ValueError, match="choose sample, hub or files"):
        DataConfig.from_mapping({})
