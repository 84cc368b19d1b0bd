#!/usr/bin/env python3
"""What bench.py asks of others, each in a process of its own so that nothing stays on the device; one JSON object on stdout.

  others.py probe  DEVICE                 what the device does at most: bytes copied a second, bf16 products a second (cuBLAS)
  others.py hf     DEVICE MODEL CASE      transformers, whole batches at a time: requests a second, to the first token, between tokens
CASE: {"clients": [..], "text": N, "tokens": N, "image": N}. Needs torch; nothing else of this repository."""
import json
import sys
import time


def clock(torch, device):
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def best_of(torch, device, n, run):
    run()
    best = 1e9
    for _ in range(n):
        begin = clock(torch, device)
        run()
        best = min(best, clock(torch, device) - begin)
    return best


def probe(device):
    import torch
    small = device == "cpu"
    n = (64 if small else 4096) << 20
    a, b = (torch.zeros(n // 2, dtype=torch.bfloat16, device=device) for _ in range(2))
    copy_s = best_of(torch, device, 5 if small else 20, lambda: b.copy_(a))
    del a, b
    out = {"torch": torch.__version__, "copy_bytes_s": 2 * n / copy_s, "matmul_flop_s": {}}
    if not small:
        p = torch.cuda.get_device_properties(0)
        out.update(gpu=p.name, sms=p.multi_processor_count, memory_bytes=p.total_memory, cuda=torch.version.cuda)
    for rows, k, cols in [(256, 512, 512)] if small else [(8192, 8192, 8192), (2048, 4096, 11008), (9216, 1024, 4096)]:
        x = torch.randn(rows, k, dtype=torch.float32 if small else torch.bfloat16, device=device)
        w = torch.randn(cols, k, dtype=x.dtype, device=device)
        out["matmul_flop_s"][f"{rows}x{k}x{cols}"] = 2 * rows * k * cols / best_of(torch, device, 20, lambda: x @ w.T)
    return out


def hf(device, model, case):
    import numpy
    import torch
    import transformers
    from PIL import Image
    kind = torch.float32 if device == "cpu" else torch.bfloat16
    begin = time.perf_counter()
    processor = transformers.AutoProcessor.from_pretrained(model)
    m = transformers.LlavaForConditionalGeneration.from_pretrained(model, dtype=kind).to(device).eval()
    out = {"transformers": transformers.__version__, "load_s": time.perf_counter() - begin, "clients": {}}
    for n in case["clients"]:
        noise = numpy.random.default_rng(n).integers(0, 256, (n, case["image"], case["image"], 3), dtype=numpy.uint8)
        inputs = processor(images=[Image.fromarray(x) for x in noise], text=["<image>"] * n, return_tensors="pt")
        text = torch.randint(10, 1000, (n, case["text"]))
        ids = torch.cat([inputs["input_ids"], text], 1).to(device)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": inputs["pixel_values"].to(device, kind)}

        def run(tokens):
            with torch.inference_mode():
                m.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=0)
        try:
            run(2)
            first = best_of(torch, device, 2, lambda: run(1))
            begin = clock(torch, device)
            run(case["tokens"])
            took = clock(torch, device) - begin
            out["clients"][str(n)] = {"requests_s": n / took, "ttft_s": first, "itl_s": (took - first) / max(1, case["tokens"] - 1)}
        except torch.OutOfMemoryError:
            out["clients"][str(n)] = {"note": "out of memory"}
            torch.cuda.empty_cache()
    return out


if __name__ == "__main__":
    what, where = sys.argv[1:3]
    result = probe(where) if what == "probe" else hf(where, sys.argv[3], json.loads(sys.argv[4]))
    print("RESULT " + json.dumps(result))
