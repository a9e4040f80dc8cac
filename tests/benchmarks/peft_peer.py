"""The same fine-tuning in PyTorch with transformers and peft, to compare with: LoRA on all matrices of an export.

Same as `espalier finetune --train lora --loss lm`: the same samples a step, AdamW (0.9, 0.95), gradients cut to norm 1,
float32. Prints seconds a step and the peak resident set.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import h5py
import peft
import torch
import transformers

MATRICES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", type=Path, required=True, help="an exported folder")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(options.model, torch_dtype=torch.float32)
    model.config.use_cache = False
    model = peft.get_peft_model(model, peft.LoraConfig(r=16, lora_alpha=32, target_modules=MATRICES, task_type="CAUSAL_LM"))
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=5e-4, betas=(0.9, 0.95), weight_decay=0)
    ids = torch.from_numpy(h5py.File(options.data)["input_ids"][:].astype("int64"))
    seconds = []
    for step in range(options.steps):
        start = time.monotonic()
        batch = ids[step * options.batch : (step + 1) * options.batch]
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        seconds.append(time.monotonic() - start)
    usual = sorted(seconds)[len(seconds) // 2]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"PyTorch {torch.__version__}, peft {peft.__version__}, {options.threads} thread(s): {usual:.2f} s a step, "
          f"peak {peak / 2**20:.0f} MiB")
    if options.json:
        options.json.write_text(json.dumps({"seconds_per_step": usual, "peak_resident_bytes": peak}))


if __name__ == "__main__":
    main()
