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
    {"GemmaTokenizer", "mask_token", "<mask>"},
};

const class_token *class_token_at(int i) {
    return i >= 0 && (size_t)i < ARRAY_LEN(class_tokens) ? &class_tokens[i] : NULL;
}

bool class_token_of(const class_token *c, const char *tokenizer_class) {
    size_t n = strlen(tokenizer_class);
    if (n > 4 && strcmp(tokenizer_class + n - 4, "Fast") == 0) n -= 4;
    return strlen(c->class) == n && memcmp(tokenizer_class, c->class, n) == 0;
}
