"""What a LLaVA checkpoint costs, from its config.json and its files' headers: bytes that a decode step reads, and operations of a
prompt's row and of a picture. Standard library only; used by bench.py."""
import json
import math
import pathlib

CLIP = {"image_size": 336, "patch_size": 14, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
LLAMA = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}


class Shape:
    def __init__(self, folder):
        self.config = json.loads((pathlib.Path(folder) / "config.json").read_text())
        text, vision = ({**d, **self.config.get(k, {})} for k, d in (("text_config", LLAMA), ("vision_config", CLIP)))
        self.image = vision["image_size"]
        self.decoder_params = self.decoder_bytes = self.join_params = embed = embed_bytes = 0
        head = False
        for name, t in self._tensors(folder):
            n, size = math.prod(t["shape"]), t["data_offsets"][1] - t["data_offsets"][0]
            if "vision" in name or len(t["shape"]) < 2:
                continue
            if "projector" in name:
                self.join_params += n
            elif "embed_tokens" in name:
                embed, embed_bytes = n, size
            else:
                head = head or "lm_head" in name
                self.decoder_params += n
                self.decoder_bytes += size
        if not head:  # tied
            self.decoder_params += embed
            self.decoder_bytes += embed_bytes
        self.attention = 4 * text["num_hidden_layers"] * text["num_attention_heads"] * text.get("head_dim", text["hidden_size"] // text["num_attention_heads"])
        side = self.image // vision["patch_size"]
        rows, d, f, layer = side * side + 1, vision["hidden_size"], vision["intermediate_size"], self.config.get("vision_feature_layer", -2)
        layers = vision["num_hidden_layers"] + 1 + layer if layer < 0 else layer
        self.encode_flop = (layers * (2 * rows * (4 * d * d + 2 * d * f) + 4 * rows * rows * d) + 2 * rows * 3 * vision["patch_size"] ** 2 * d +
                            2 * side * side * self.join_params)

    @staticmethod
    def _tensors(folder):
        for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
            with path.open("rb") as f:
                header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
            yield from ((k, v) for k, v in header.items() if k != "__metadata__")

    def prefill_flop(self, tokens):
        return 2 * self.decoder_params * tokens + self.attention * tokens * tokens / 2
