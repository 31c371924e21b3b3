"""Words of a vocabulary are what they stand for: bytes decoded, spaces as spaces, parts of characters as their bytes."""

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from linrep.contents.stored import pieces
from linrep.vlm.config import ModelConfig
from linrep.vlm.processor import load_processor
from linrep.vlm.unembed import read_words
from linrep.vlm.words import byte_alphabet, is_byte_level, written, written_out

TEXT = "It’s a boat\n\tnaïve 漢字 🚤 “quoted” — x"


@pytest.fixture(scope="module")
def byte_level():
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    made.train_from_iterator([TEXT] * 20, trainer)
    made.add_special_tokens([AddedToken("<|im_start|>", special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<|im_start|>")


def test_a_byte_level_vocabulary_has_no_letter_of_its_own_alphabet(byte_level):
    words = written_out(byte_level)
    assert is_byte_level(byte_level)
    assert {"\n", "’", " a", " boat", "<|im_start|>", "\\xe2"} <= set(words)
    assert not any(letter in word for word in words for letter in "ĊĠâĢĻĉ")
    assert all("\ufffd" not in word for word in words)
    assert "".join(words[i] for i in byte_level("It a boat\n").input_ids) == "It a boat\n"


def test_every_byte_and_every_run_of_bytes_is_shown():
    alphabet = byte_alphabet()
    letters = {byte: letter for letter, byte in alphabet.items()}
    for byte in range(256):
        shown = chr(byte) if byte < 128 else f"\\x{byte:02x}"
        assert written(letters[byte], alphabet) == written(f"<0x{byte:02X}>", {}) == shown
    for text in (*TEXT, TEXT):
        assert written("".join(letters[byte] for byte in text.encode()), alphabet) == text
        cut = text.encode()[:-1]
        assert written("".join(letters[byte] for byte in cut), alphabet) == cut.decode(errors="backslashreplace")


def test_a_vocabulary_of_pieces_keeps_spaces_and_shows_bytes(folder):
    tokenizer = load_processor(folder).tokenizer
    assert not is_byte_level(tokenizer)
    words = read_words(ModelConfig(path=str(folder)))
    assert {"<s>", "<image>", "\n", "\\xe2", " "} <= set(words)
    assert not any("▁" in word or word.startswith("<0x") for word in words)


def test_pieces_of_a_text_are_together_the_text_where_characters_take_several_tokens(byte_level):
    ids = byte_level("A naïve 🚤 ’ 漢").input_ids
    found = pieces(lambda n: byte_level.decode(ids[:n]), len(ids))
    assert "".join(found) == "A naïve 🚤 ’ 漢"
    assert len(found) == len(ids)
    few = byte_level("🜁", add_special_tokens=False).input_ids[:-1]  # a window may end within a character
    assert pieces(lambda n: byte_level.decode(few[:n]), len(few))[-1].endswith("\ufffd")
