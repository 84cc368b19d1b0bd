"""Writes cases.txt: logits, how to choose from them, and the probabilities that the reference's logits processors give.

transformers' RepetitionPenalty, Temperature, TopK, TopP and MinP processors in the order of its generate(); logit
bias (added first), frequency and presence penalties by their definition in the OpenAI API, after the repetition
penalty as vLLM does. Run with transformers 5.23 and torch: python make.py > cases.txt
"""
import numpy as np
import torch
from transformers import (MinPLogitsWarper, RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper,
                          TopKLogitsWarper, TopPLogitsWarper)

rng = np.random.default_rng(7)


def probabilities(x, c):
    x = torch.tensor(x, dtype=torch.float32)[None].clone()
    for i, b in c["bias"]:
        x[0, i] += b
    seen = c["prompt"] + c["out"]
    if c["rep"] != 1 and seen:
        x = RepetitionPenaltyLogitsProcessor(c["rep"])(torch.tensor([seen]), x)
    for i in set(c["out"]):
        x[0, i] -= c["freq"] * c["out"].count(i)
        x[0, i] -= c["pres"]
    ids = torch.tensor([[0]])
    x = TemperatureLogitsWarper(c["t"])(ids, x)
    if c["k"]:
        x = TopKLogitsWarper(c["k"])(ids, x)
    if c["p"] < 1:
        x = TopPLogitsWarper(c["p"])(ids, x)
    if c["minp"] > 0:
        x = MinPLogitsWarper(c["minp"])(ids, x)
    return torch.softmax(x[0].double(), -1).numpy()


def pick(options):
    return options[rng.integers(len(options))]


for case in range(60):
    n = int(pick([3, 17, 33, 64]))
    # Logits a little apart from each other, so that no cut depends on the last bit.
    x = (rng.permutation(n) * 0.05 + rng.uniform(0, 0.02, n)) * float(pick([1, 3])) - float(pick([0, 2]))
    x = x.astype(np.float32)
    c = dict(t=float(pick([1.0, 0.7, 1.5, 0.1])), k=int(pick([0, 0, 1, 5])), p=float(pick([1, 0.9, 0.5, 0.05])),
             minp=float(pick([0, 0, 0.1, 0.6])), rep=float(pick([1, 1, 1.3, 0.8])), pres=float(pick([0, 0.5, -0.5])),
             freq=float(pick([0, 0.25, -0.4])),
             bias=[(int(i), float(b)) for i, b in zip(rng.permutation(n)[:3], [2.5, -1, -100])] if case % 3 == 0 else [],
             prompt=[int(i) for i in rng.integers(0, n, 6)], out=[int(i) for i in rng.integers(0, n, 5 * (case % 2))])
    p = probabilities(x, c)
    counts = sorted((i, c["out"].count(i)) for i in set(c["out"]))
    prompt = sorted(set(c["prompt"]) - set(c["out"]))
    print(n, c["t"], c["k"], c["p"], c["minp"], c["rep"], c["pres"], c["freq"])
    print(len(c["bias"]), *[f"{i} {b}" for i, b in c["bias"]])
    print(len(prompt), *prompt)
    print(len(counts), *[f"{i} {k}" for i, k in counts])
    print(*[float(v).hex() for v in x])
    print(*[f"{v:.9g}" for v in p])
