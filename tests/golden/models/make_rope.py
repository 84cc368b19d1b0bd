#!/usr/bin/env python3
"""Frequencies and attention factors of every rope type, in the old and the new spelling, as transformers computes them."""
import json
import pathlib

from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

CLASSES = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
BASE = {"hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 4096}
CASES = [
    {"model_type": "llama"},
    {"model_type": "llama", "rope_theta": 500000.0, "head_dim": 24},
    {"model_type": "llama", "head_dim": None, "rope_scaling": None},
    {"model_type": "mistral", "rope_theta": 1000000, "rope_parameters": None},
    {"model_type": "qwen3", "head_dim": 128, "rope_parameters": {"rope_type": "default", "rope_theta": 1000000}},
    {"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 2}},
    {"model_type": "llama", "rope_scaling": {"rope_type": "linear", "factor": 3.5}, "rope_theta": 20000.0},
    {"model_type": "llama", "rope_parameters": {"rope_type": "linear", "factor": 8.0, "rope_theta": 12345.0}},
    {"model_type": "qwen2", "rope_scaling": {"type": "dynamic", "factor": 2.0}},
    {"model_type": "llama", "head_dim": 64, "rope_theta": 500000.0, "max_position_embeddings": 131072,
     "rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                      "original_max_position_embeddings": 8192, "rope_type": "llama3"}},
    {"model_type": "llama", "head_dim": 64, "rope_theta": 500000.0, "max_position_embeddings": 131072,
     "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                      "original_max_position_embeddings": 8192, "rope_type": "llama3"}},
    {"model_type": "llama", "head_dim": 32, "rope_scaling": {"factor": 4.0, "high_freq_factor": 5.0,
                                                            "low_freq_factor": 1.5, "rope_type": "llama3"}},
    {"model_type": "qwen2", "rope_theta": 1000000.0, "max_position_embeddings": 32768,
     "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}},
    {"model_type": "qwen3", "head_dim": 128, "rope_theta": 1000000,
     "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}},
    {"model_type": "llama", "head_dim": 48, "rope_parameters": {
        "rope_type": "yarn", "factor": 16.0, "rope_theta": 10000.0, "original_max_position_embeddings": 2048,
        "beta_fast": 20, "beta_slow": 2, "truncate": False}},
    {"model_type": "llama", "head_dim": 48, "rope_parameters": {
        "rope_type": "yarn", "factor": 40.0, "rope_theta": 10000.0, "original_max_position_embeddings": 512,
        "mscale": 0.707, "mscale_all_dim": 1.2}},
    {"model_type": "llama", "head_dim": 48, "rope_parameters": {
        "rope_type": "yarn", "factor": 2.0, "rope_theta": 10000.0, "original_max_position_embeddings": 512,
        "attention_factor": 0.9}},
    {"model_type": "llama", "head_dim": 48, "rope_scaling": {"type": "yarn", "factor": None,
                                                            "original_max_position_embeddings": 1024}},
    {"model_type": "llama", "head_dim": 48, "original_max_position_embeddings": 256,
     "rope_scaling": {"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 1024}},
    {"model_type": "llama", "head_dim": 16, "rope_scaling": {"type": "yarn", "factor": 2.0}},
]
out = []
for c in CASES:
    c = {**BASE, **c}
    # The class fills in the dict it is given: hand it a copy.
    cfg = CLASSES[c["model_type"]](**json.loads(json.dumps({k: v for k, v in c.items() if k != "model_type"})))
    r = LlamaRotaryEmbedding(cfg)
    out.append({"config": c, "factor": r.attention_scaling, "inv_freq": [float(x) for x in r.inv_freq]})
pathlib.Path(__file__).with_name("rope.json").write_text(
    "[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in out) + "\n]\n")
