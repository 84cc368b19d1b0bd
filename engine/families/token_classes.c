/* token_classes.c - see token_classes.h. Names here are values found in files, as data. */
#include "engine/families/token_classes.h"

#include <string.h>

#include "kernels/base.h"

static const class_token class_tokens[] = {
    {"LlamaTokenizer", "bos_token", "<s>"},           {"LlamaTokenizer", "eos_token", "</s>"},
    {"LlamaTokenizer", "unk_token", "<unk>"},         {"CodeLlamaTokenizer", "bos_token", "<s>"},
    {"CodeLlamaTokenizer", "eos_token", "</s>"},      {"CodeLlamaTokenizer", "unk_token", "<unk>"},
    {"Qwen2Tokenizer", "eos_token", "<|endoftext|>"}, {"Qwen2Tokenizer", "unk_token", "<|endoftext|>"},
    {"Qwen2Tokenizer", "pad_token", "<|endoftext|>"}, {"GPT2Tokenizer", "bos_token", "<|endoftext|>"},
    {"GPT2Tokenizer", "eos_token", "<|endoftext|>"},  {"GPT2Tokenizer", "unk_token", "<|endoftext|>"},
    {"GemmaTokenizer", "bos_token", "<bos>"},         {"GemmaTokenizer", "eos_token", "<eos>"},
    {"GemmaTokenizer", "unk_token", "<unk>"},         {"GemmaTokenizer", "pad_token", "<pad>"},
    {"GemmaTokenizer", "mask_token", "<mask>"},       {"CLIPTokenizer", "bos_token", "<|startoftext|>"},
    {"CLIPTokenizer", "eos_token", "<|endoftext|>"},  {"CLIPTokenizer", "unk_token", "<|endoftext|>"},
    {"CLIPTokenizer", "pad_token", "<|endoftext|>"},  {"SiglipTokenizer", "eos_token", "</s>"},
    {"SiglipTokenizer", "unk_token", "<unk>"},        {"SiglipTokenizer", "pad_token", "</s>"},
    {"Siglip2Tokenizer", "bos_token", "<bos>"},       {"Siglip2Tokenizer", "eos_token", "<eos>"},
    {"Siglip2Tokenizer", "unk_token", "<unk>"},       {"Siglip2Tokenizer", "pad_token", "<pad>"},
};

const class_token *class_token_at(int i) {
    return i >= 0 && (size_t)i < ARRAY_LEN(class_tokens) ? &class_tokens[i] : NULL;
}

bool class_token_of(const class_token *c, const char *tokenizer_class) {
    size_t n = strlen(tokenizer_class);
    if (n > 4 && strcmp(tokenizer_class + n - 4, "Fast") == 0) n -= 4;
    return strlen(c->class) == n && memcmp(tokenizer_class, c->class, n) == 0;
}

bool token_class_pads_left(const char *tokenizer_class) {
    static const class_token left[] = {{"GemmaTokenizer", NULL, NULL}, {"Siglip2Tokenizer", NULL, NULL}};
    for (size_t i = 0; i < ARRAY_LEN(left); i++)
        if (class_token_of(&left[i], tokenizer_class)) return true;
    return false;
}

/* The reference looks for the word anywhere in the file. */
static bool mentions_byte_level(const json_t *j) {
    const char *key;
    const json_t *v;
    size_t i;
    if (json_is_string(j)) return strcmp(json_string_value(j), "ByteLevel") == 0;
    json_object_foreach((json_t *)j, key, v) if (mentions_byte_level(v)) return true;
    json_array_foreach(j, i, v) if (mentions_byte_level(v)) return true;
    return false;
}

/* Metaspace instead of a normalizer, so that by default only the text's beginning gets a space in front, not every
 * stretch after a special token. */
static bool apply_llama(json_t *tokenizer, const json_t *tc) {
    const json_t *prefix = json_object_get(tc, "add_prefix_space");
    bool space = !json_is_false(prefix), legacy = json_is_true(json_object_get(tc, "legacy"));
    json_t *pre =
        json_pack("{s:s, s:s, s:s, s:b}", "type", "Metaspace", "replacement", "\u2581", "prepend_scheme",
                  !space   ? "never"
                  : legacy ? "always"
                           : "first",
                  "split", 0);
    json_t *steps = json_pack("[{s:s, s:{s:s}, s:s}, {s:s}, {s:s}]", "type", "Replace", "pattern", "String",
                              "\u2581", "content", " ", "type", "ByteFallback", "type", "Fuse");
    bool ok = pre && steps;
    if (ok && space)
        ok = json_array_append_new(steps, json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip", "content", " ",
                                                    "start", 1, "stop", 0)) == 0;
    json_t *model = json_object_get(tokenizer, "model");
    ok = ok && json_object_set(tokenizer, "pre_tokenizer", pre) == 0 &&
         json_object_set_new(tokenizer, "decoder",
                             json_pack("{s:s, s:O}", "type", "Sequence", "decoders", steps)) == 0 &&
         json_object_set_new(tokenizer, "normalizer", json_null()) == 0 &&
         json_object_set_new(model, "unk_token", json_null()) == 0 &&
         json_object_set_new(model, "fuse_unk", json_true()) == 0 &&
         json_object_set_new(model, "byte_fallback", json_true()) == 0 &&
         json_object_set_new(model, "ignore_merges", json_false()) == 0 &&
         json_object_set_new(model, "continuing_subword_prefix", json_null()) == 0 &&
         json_object_set_new(model, "end_of_word_suffix", json_null()) == 0;
    json_decref(pre);
    json_decref(steps);
    return ok;
}

/* Gemma's pipeline in lower case; AutoTokenizer takes this class for the model_type, whatever the files name. */
static bool apply_siglip2(json_t *tokenizer, const json_t *tc) {
    json_t *model = json_object_get(tokenizer, "model");
    const json_t *unk = json_object_get(tc, "unk_token");
    if (json_is_object(unk)) unk = json_object_get(unk, "content");
    const char *unk_text = json_is_string(unk) ? json_string_value(unk) : "<unk>";
    json_t *norm =
        json_pack("{s:s, s:[{s:s}, {s:s, s:{s:s}, s:s}]}", "type", "Sequence", "normalizers", "type",
                  "Lowercase", "type", "Replace", "pattern", "String", " ", "content", "\u2581");
    json_t *pre = json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "String", " ", "behavior",
                            "MergedWithPrevious", "invert", 0);
    bool ok = norm && pre && json_object_set(tokenizer, "normalizer", norm) == 0 &&
              json_object_set(tokenizer, "pre_tokenizer", pre) == 0 &&
              json_object_set_new(model, "unk_token", json_string(unk_text)) == 0 &&
              json_object_set_new(model, "fuse_unk", json_true()) == 0 &&
              json_object_set_new(model, "byte_fallback", json_true()) == 0 &&
              json_object_set_new(model, "ignore_merges", json_false()) == 0 &&
              json_object_set_new(model, "continuing_subword_prefix", json_null()) == 0 &&
              json_object_set_new(model, "end_of_word_suffix", json_null()) == 0;
    json_decref(norm);
    json_decref(pre);
    return ok;
}

bool token_class_apply(json_t *tokenizer, const json_t *config, const json_t *tokenizer_config) {
    const char *class = json_string_value(json_object_get(tokenizer_config, "tokenizer_class"));
    const char *type = json_string_value(json_object_get(config, "model_type"));
    if (type && strcmp(type, "siglip2") == 0 && json_is_object(json_object_get(tokenizer, "model")))
        return apply_siglip2(tokenizer, tokenizer_config);
    bool llama = class && (strcmp(class, "LlamaTokenizer") == 0 || strcmp(class, "LlamaTokenizerFast") == 0);
    if (!llama || !type || strcmp(type, "llama") != 0) return true;
    const char *model = json_string_value(json_object_get(json_object_get(tokenizer, "model"), "type"));
    if ((model && strcmp(model, "BPE") != 0) || !json_is_object(json_object_get(tokenizer, "model")))
        return true;
    return mentions_byte_level(tokenizer) || apply_llama(tokenizer, tokenizer_config);
}
