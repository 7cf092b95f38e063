# SPDX-License-Identifier: Apache-2.0
"""compare_adapter.py BASE ADAPTER IDS: the logits that peft computes with the adapter on its base, and after merging them, as JSON.

Ends with 77 where peft is not installed.
"""
import json
import sys


def main():
    try:
        import peft
    except ImportError:
        sys.exit(77)
    import torch
    from transformers import AutoModelForCausalLM

    base, adapter, ids = sys.argv[1], sys.argv[2], torch.tensor([json.loads(sys.argv[3])])
    model = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter)
    loaded = {name.replace(".default", ""): tensor for name, tensor in model.state_dict().items() if ".lora_" in name}
    saved = peft.load_peft_weights(adapter, device="cpu")
    if set(loaded) != set(saved) or not all(torch.equal(loaded[name], saved[name]) for name in saved):
        sys.exit("peft did not load what the file holds")
    with torch.no_grad():
        unmerged = model(ids).logits[0].tolist()
        merged = model.merge_and_unload()(ids).logits[0].tolist()
    print(json.dumps({"unmerged": unmerged, "merged": merged}))


if __name__ == "__main__":
    main()
