"""Adapters of the package peft on a GPT of this repository."""

import torch
from peft import LoraConfig, PeftModel, get_peft_model


def test_lora_of_peft_trains_and_comes_back(make_run, tmp_path):
    tokens = torch.arange(16)[None]
    model = make_run("dropout=none").model
    expected = model(tokens).hidden.detach()
    tuned = get_peft_model(model, LoraConfig(target_modules=["qkv", "project", "expand"]))
    torch.testing.assert_close(tuned(tokens).hidden, expected)

    trainable = {n: p for n, p in tuned.named_parameters() if p.requires_grad}
    assert trainable
    assert all("lora" in name for name in trainable)
    optimizer = torch.optim.SGD(trainable.values(), lr=0.1)
    tuned(tokens).hidden.square().sum().backward()
    optimizer.step()
    tuned.eval()
    changed = tuned(tokens).hidden.detach()
    assert not torch.allclose(changed, expected, atol=1e-3)

    tuned.save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(tuned.unload(), tmp_path / "adapter").eval()
    torch.testing.assert_close(again(tokens).hidden, changed)
