"""Merges a PEFT LoRA adapter into its model. Run as a script, in a clean environment.

    python merge_lora.py MODEL ADAPTER OUT

It imports nothing of edge_eft. Weights are merged in float32 and saved so: rounding them to the
model's own 16 bits here would lose part of a small adapter.
"""

import sys

import peft  # type: ignore[import-not-found,unused-ignore]
import torch  # type: ignore[import-not-found,unused-ignore]
import transformers  # type: ignore[import-not-found,unused-ignore]

if __name__ == "__main__":
    model_path, adapter_path, target = sys.argv[1:4]
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    merged = peft.PeftModel.from_pretrained(loaded, adapter_path).merge_and_unload()
    merged.save_pretrained(target, safe_serialization=True)
