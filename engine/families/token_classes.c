/* token_classes.c - see token_classes.h. Names here are values found in files, as data. */
#include "engine/families/token_classes.h"

#include <string.h>

#include "kernels/base.h"
#include "kernels/json.h"

static const class_token class_tokens[] = {
    {"LlamaTokenizer", "bos_token", "<s>"},
    {"LlamaTokenizer", "eos_token", "</s>"},
    {"LlamaTokenizer", "unk_token", "<unk>"},
    {"CodeLlamaTokenizer", "bos_token", "<s>"},
    {"CodeLlamaTokenizer", "eos_token", "</s>"},
    {"CodeLlamaTokenizer", "unk_token", "<unk>"},
    {"Qwen2Tokenizer", "eos_token", "<|endoftext|>"},
    {"Qwen2Tokenizer", "unk_token", "<|endoftext|>"},
    {"Qwen2Tokenizer", "pad_token", "<|endoftext|>"},
    {"GPT2Tokenizer", "bos_token", "<|endoftext|>"},
    {"GPT2Tokenizer", "eos_token", "<|endoftext|>"},
    {"GPT2Tokenizer", "unk_token", "<|endoftext|>"},
    {"GemmaTokenizer", "bos_token", "<bos>"},
    {"GemmaTokenizer", "eos_token", "<eos>"},
    {"GemmaTokenizer", "unk_token", "<unk>"},
    {"GemmaTokenizer", "pad_token", "<pad>"},
    {"GemmaTokenizer", "mask_token", "<mask>"},
    {"Siglip2Tokenizer", "bos_token", "<bos>"},
    {"Siglip2Tokenizer", "eos_token", "<eos>"},
    {"Siglip2Tokenizer", "unk_token", "<unk>"},
    {"Siglip2Tokenizer", "pad_token", "<pad>"},
    {"Siglip2Tokenizer", "mask_token", "<mask>"},
    {"SiglipTokenizer", "eos_token", "</s>"},
    {"SiglipTokenizer", "unk_token", "<unk>"},
    {"SiglipTokenizer", "pad_token", "</s>"},
    {"T5Tokenizer", "eos_token", "</s>"},
    {"T5Tokenizer", "unk_token", "<unk>"},
    {"T5Tokenizer", "pad_token", "<pad>"},
    {"CLIPTokenizer", "bos_token", "<|startoftext|>"},
    {"CLIPTokenizer", "eos_token", "<|endoftext|>"},
    {"CLIPTokenizer", "unk_token", "<|endoftext|>"},
    {"CLIPTokenizer", "pad_token", "<|endoftext|>"},
    {"BertTokenizer", "cls_token", "[CLS]"},
    {"BertTokenizer", "sep_token", "[SEP]"},
    {"BertTokenizer", "unk_token", "[UNK]"},
    {"BertTokenizer", "pad_token", "[PAD]"},
    {"BertTokenizer", "mask_token", "[MASK]"},
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

bool token_class_makes_plain(const char *tokenizer_class) {
    static const class_token plain = {"Qwen2Tokenizer", NULL, NULL};
    return class_token_of(&plain, tokenizer_class);
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

/* ---- the pipelines that classes build ---- */

#define BYTE_BPE                                                                                             \
    "{'unk_token':null,'fuse_unk':false,'byte_fallback':false,'ignore_merges':false,"                        \
    "'continuing_subword_prefix':'','end_of_word_suffix':''}"
#define PIECE_BPE                                                                                            \
    "{'unk_token':null,'fuse_unk':true,'byte_fallback':true,'ignore_merges':false,"                          \
    "'continuing_subword_prefix':null,'end_of_word_suffix':null}"
#define SPACE_MARK "{'type':'Replace','pattern':{'String':' '},'content':'\xE2\x96\x81'}"
#define CUT_AFTER_SPACE                                                                                      \
    "{'type':'Split','pattern':{'String':' '},'behavior':'MergedWithPrevious','invert':false}"
#define PIECES_TO_TEXT                                                                                       \
    "{'type':'Replace','pattern':{'String':'\xE2\x96\x81'},'content':' '},{'type':'ByteFallback'},"          \
    "{'type':'Fuse'}"
#define QWEN2_WORDS                                                                                          \
    "(?i:`s|`t|`re|`ve|`m|`ll|`d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| "                        \
    "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define CLIP_WORDS                                                                                           \
    "<\\\\|startoftext\\\\|>|<\\\\|endoftext\\\\|>|`s|`t|`re|`ve|`m|`ll|`d|[\\\\p{L}]+|[\\\\p{N}]|"          \
    "[^\\\\s\\\\p{L}\\\\p{N}]+"

/* What takes the place of the file's parts, as JSON (' for the double quote, ` for the single one); a model's keys are
 * set one by one. */
typedef struct pipeline {
    const char *class, *kind; /* kind: the type of model that it wants */
    const char *model, *normalizer, *pre_tokenizer, *decoder;
    bool takes_unk;             /* model.unk_token is the class's unk_token */
    const char *before, *after; /* names of tokens around a text; both NULL: the file's post_processor */
    bool (*finish)(json_t *tokenizer, const json_t *file,
                   const json_t *tc); /* what the config decides; may be NULL */
} pipeline;

static bool finish_llama(json_t *tokenizer, const json_t *file, const json_t *tc);
static bool finish_code_llama(json_t *tokenizer, const json_t *file, const json_t *tc);
static bool finish_gpt2(json_t *tokenizer, const json_t *file, const json_t *tc);
static bool finish_qwen2(json_t *tokenizer, const json_t *file, const json_t *tc);
static bool finish_bert(json_t *tokenizer, const json_t *file, const json_t *tc);
static bool finish_t5(json_t *tokenizer, const json_t *file, const json_t *tc);

static const pipeline pipelines[] = {
    /* Metaspace instead of a normalizer, so that by default only the text's beginning gets a space in front, not every
     * stretch after a special token. */
    {"LlamaTokenizer", "BPE", PIECE_BPE, "null",
     "{'type':'Metaspace','replacement':'\xE2\x96\x81','split':false}",
     "{'type':'Sequence','decoders':[" PIECES_TO_TEXT "]}", false, NULL, NULL, finish_llama},
    /* BOS always, whatever the file and add_bos_token say */
    {"CodeLlamaTokenizer", "BPE", PIECE_BPE, "null",
     "{'type':'Metaspace','replacement':'\xE2\x96\x81','split':false}",
     "{'type':'Sequence','decoders':[" PIECES_TO_TEXT ",{'type':'Strip','content':' ','start':1,'stop':0}]}",
     true, "bos_token", NULL, finish_code_llama},
    {"GPT2Tokenizer", "BPE", BYTE_BPE, "null", "{'type':'ByteLevel'}", "{'type':'ByteLevel'}", false, NULL,
     NULL, finish_gpt2},
    {"Qwen2Tokenizer", "BPE", BYTE_BPE, "{'type':'NFC'}",
     "{'type':'Sequence','pretokenizers':[{'type':'Split','pattern':{'Regex':'" QWEN2_WORDS
     "'},'behavior':'Isolated','invert':false},{'type':'ByteLevel','use_regex':false}]}",
     "{'type':'ByteLevel'}", false, NULL, NULL, finish_qwen2},
    {"GemmaTokenizer", "BPE", PIECE_BPE, SPACE_MARK, CUT_AFTER_SPACE,
     "{'type':'Sequence','decoders':[" PIECES_TO_TEXT "]}", true, NULL, NULL, NULL},
    {"Siglip2Tokenizer", "BPE", PIECE_BPE,
     "{'type':'Sequence','normalizers':[{'type':'Lowercase'}," SPACE_MARK "]}", CUT_AFTER_SPACE,
     "{'type':'Sequence','decoders':[" PIECES_TO_TEXT "]}", true, NULL, NULL, NULL},
    /* its decode also makes spaces of the ends of words and strips the whole */
    {"CLIPTokenizer", "BPE",
     "{'fuse_unk':false,'byte_fallback':false,'ignore_merges':false,'continuing_subword_prefix':'',"
     "'end_of_word_suffix':'</w>'}",
     "{'type':'Sequence','normalizers':[{'type':'NFC'},{'type':'Replace','pattern':{'Regex':'\\\\s+'},'"
     "content':' '},"
     "{'type':'Lowercase'}]}",
     "{'type':'Sequence','pretokenizers':[{'type':'Split','pattern':{'Regex':'" CLIP_WORDS
     "'},'behavior':'Removed','invert':true},{'type':'ByteLevel','add_prefix_space':false}]}",
     "{'type':'Sequence','decoders':[{'type':'ByteLevel'},{'type':'Replace','pattern':{'String':'</"
     "w>'},'content':' '},"
     "{'type':'Strip','content':' ','start':1000000,'stop':1000000}]}",
     true, "bos_token", "eos_token", NULL},
    {"BertTokenizer", "WordPiece", "{'continuing_subword_prefix':'##','max_input_chars_per_word':100}",
     "{'type':'BertNormalizer','clean_text':true}", "{'type':'BertPreTokenizer'}",
     "{'type':'WordPiece','prefix':'##','cleanup':true}", true, "cls_token", "sep_token", finish_bert},
    {"T5Tokenizer", "Unigram", "{'unk_id':2,'byte_fallback':false}", "null",
     "{'type':'Sequence','pretokenizers':[{'type':'WhitespaceSplit'},{'type':'Metaspace','replacement':"
     "'\xE2\x96\x81','prepend_scheme':'always','split':true}]}",
     "{'type':'Metaspace','replacement':'\xE2\x96\x81','prepend_scheme':'always','split':true}", false, NULL,
     "eos_token", finish_t5},
};

/* ---- what the config decides ---- */

static bool set_bool(json_t *obj, const char *key, bool value) {
    return obj && json_object_set_new(obj, key, json_boolean(value)) == 0;
}

static bool option(const json_t *tc, const char *key, bool absent) {
    const json_t *v = json_object_get(tc, key);
    return json_is_boolean(v) ? json_is_true(v) : absent;
}

static bool finish_llama(json_t *tokenizer, const json_t *file, const json_t *tc) {
    (void)file;
    bool space = option(tc, "add_prefix_space", true), legacy = option(tc, "legacy", false);
    const char *scheme = !space ? "never" : legacy ? "always" : "first";
    if (json_object_set_new(json_object_get(tokenizer, "pre_tokenizer"), "prepend_scheme",
                            json_string(scheme)) != 0)
        return false;
    json_t *steps = json_object_get(json_object_get(tokenizer, "decoder"), "decoders");
    return !space || json_array_append_new(
                         steps, json_literal("{'type':'Strip','content':' ','start':1,'stop':0}")) == 0;
}

static bool finish_code_llama(json_t *tokenizer, const json_t *file, const json_t *tc) {
    (void)file;
    return json_object_set_new(json_object_get(tokenizer, "pre_tokenizer"), "prepend_scheme",
                               json_string(option(tc, "add_prefix_space", true) ? "first" : "never")) == 0;
}

static bool finish_gpt2(json_t *tokenizer, const json_t *file, const json_t *tc) {
    (void)file;
    return set_bool(json_object_get(tokenizer, "pre_tokenizer"), "add_prefix_space",
                    option(tc, "add_prefix_space", false));
}

static bool finish_qwen2(json_t *tokenizer, const json_t *file, const json_t *tc) {
    (void)file;
    json_t *steps = json_object_get(json_object_get(tokenizer, "pre_tokenizer"), "pretokenizers");
    return set_bool(json_array_get(steps, 1), "add_prefix_space", option(tc, "add_prefix_space", false));
}

static bool finish_bert(json_t *tokenizer, const json_t *file, const json_t *tc) {
    (void)file;
    json_t *norm = json_object_get(tokenizer, "normalizer"), *accents = json_object_get(tc, "strip_accents");
    return set_bool(norm, "lowercase", option(tc, "do_lower_case", true)) &&
           set_bool(norm, "handle_chinese_chars", option(tc, "tokenize_chinese_chars", true)) &&
           (!json_is_boolean(accents) || json_object_set(norm, "strip_accents", accents) == 0);
}

/* Of the file's normalizer only the compiled map stays. */
static bool finish_t5(json_t *tokenizer, const json_t *file, const json_t *tc) {
    (void)tc;
    json_t *norm = json_object_get(file, "normalizer"), *steps = json_object_get(norm, "normalizers"), *part;
    size_t i, n = json_is_array(steps) ? json_array_size(steps) : 1;
    for (i = 0; i < n; i++) {
        part = json_is_array(steps) ? json_array_get(steps, i) : norm;
        const char *type = json_string_value(json_object_get(part, "type"));
        if (type && strcmp(type, "Precompiled") == 0)
            return json_object_set(tokenizer, "normalizer", part) == 0;
    }
    return true;
}

/* ---- building ---- */

static const char *token_of(const pipeline *p, const json_t *tc, const char *name) {
    const json_t *v = json_object_get(tc, name);
    if (json_is_object(v)) v = json_object_get(v, "content");
    if (json_is_string(v)) return json_string_value(v);
    const class_token *c;
    for (int i = 0; !v && (c = class_token_at(i)); i++)
        if (strcmp(c->class, p->class) == 0 && strcmp(c->name, name) == 0) return c->token;
    return NULL;
}

static json_int_t id_of(const json_t *tokenizer, const char *token) {
    json_t *vocab = json_object_get(json_object_get(tokenizer, "model"), "vocab"), *e;
    size_t i;
    if (json_is_integer(json_object_get(vocab, token)))
        return json_integer_value(json_object_get(vocab, token));
    json_array_foreach(vocab, i, e) {
        const char *s = json_string_value(json_array_get(e, 0));
        if (s && strcmp(s, token) == 0) return (json_int_t)i;
    }
    json_array_foreach(json_object_get(tokenizer, "added_tokens"), i, e) {
        const char *s = json_string_value(json_object_get(e, "content"));
        if (s && strcmp(s, token) == 0) return json_integer_value(json_object_get(e, "id"));
    }
    return -1;
}

/* A template with the token of this name before or behind what it has; nothing when the tokenizer lacks the token. */
static bool surround(const pipeline *p, json_t *tokenizer, const json_t *tc, const char *name, json_t *single,
                     json_t *specials) {
    const char *token = name ? token_of(p, tc, name) : NULL;
    json_int_t id = token ? id_of(tokenizer, token) : -1;
    if (id < 0) return true;
    return json_array_append_new(single, json_pack("{s:{s:s}}", "SpecialToken", "id", token)) == 0 &&
           json_object_set_new(specials, token, json_pack("{s:[I]}", "ids", id)) == 0;
}

static bool set_template(const pipeline *p, json_t *tokenizer, const json_t *tc) {
    json_t *single = json_array(), *specials = json_object();
    bool ok = single && specials && surround(p, tokenizer, tc, p->before, single, specials) &&
              json_array_append_new(single, json_pack("{s:{s:s}}", "Sequence", "id", "A")) == 0 &&
              surround(p, tokenizer, tc, p->after, single, specials) &&
              json_object_set_new(tokenizer, "post_processor",
                                  json_pack("{s:s, s:O, s:O}", "type", "TemplateProcessing", "single", single,
                                            "special_tokens", specials)) == 0;
    json_decref(single);
    json_decref(specials);
    return ok;
}

static bool build(const pipeline *p, json_t *tokenizer, const json_t *tc) {
    json_t *model = json_object_get(tokenizer, "model"), *keys = json_literal(p->model),
           *file = json_copy(tokenizer);
    const char *unk = token_of(p, tc, "unk_token");
    bool ok = keys && file && json_object_update(model, keys) == 0 &&
              json_object_set_new(tokenizer, "normalizer", json_literal(p->normalizer)) == 0 &&
              json_object_set_new(tokenizer, "pre_tokenizer", json_literal(p->pre_tokenizer)) == 0 &&
              json_object_set_new(tokenizer, "decoder", json_literal(p->decoder)) == 0;
    if (ok && p->takes_unk)
        ok = json_object_set_new(model, "unk_token", unk ? json_string(unk) : json_null()) == 0;
    ok = ok && (!p->finish || p->finish(tokenizer, file, tc));
    if (ok && (p->before || p->after)) ok = set_template(p, tokenizer, tc);
    json_decref(keys);
    json_decref(file);
    return ok;
}

/* ---- which class is asked ---- */

/* The class that the reference knows for a model_type (its TOKENIZER_MAPPING_NAMES); NULL: tokenizer.json as it is.
 * A model_type that is not here takes the class of the checkpoint. corrects: the checkpoint's class does not count. */
static const struct {
    const char *model_type, *class;
    bool corrects;
} known[] = {
    {"mistral", NULL, false},
    {"mistral3", NULL, false},
    {"pixtral", NULL, false},
    {"llava", NULL, false},
    {"llava_next", NULL, false},
    {"vipllava", NULL, false},
    {"smolvlm", NULL, false},
    {"phi3", NULL, false},
    {"gpt2", "GPT2Tokenizer", false},
    {"opt", "GPT2Tokenizer", false},
    {"blip-2", "GPT2Tokenizer", false},
    {"instructblip", "GPT2Tokenizer", false},
    {"idefics2", "LlamaTokenizer", false},
    {"internvl", "Qwen2Tokenizer", false},
    {"qwen2", "Qwen2Tokenizer", true},
    {"qwen2_vl", "Qwen2Tokenizer", false},
    {"qwen2_5_vl", "Qwen2Tokenizer", false},
    {"qwen3", "Qwen2Tokenizer", false},
    {"qwen3_vl", "Qwen2Tokenizer", false},
    {"gemma", "GemmaTokenizer", false},
    {"gemma2", "GemmaTokenizer", false},
    {"gemma3", "GemmaTokenizer", false},
    {"gemma3_text", "GemmaTokenizer", false},
    {"blip", "BertTokenizer", false},
    {"bert", "BertTokenizer", false},
    {"clip", "CLIPTokenizer", false},
    {"coca", "CLIPTokenizer", false},
    {"siglip2", "Siglip2Tokenizer", true},
    {"t5", "T5Tokenizer", false},
};

static const pipeline *pipeline_of(const char *class) {
    size_t n = class ? strlen(class) : 0;
    if (n > 4 && strcmp(class + n - 4, "Fast") == 0) n -= 4;
    for (size_t i = 0; n && i < ARRAY_LEN(pipelines); i++)
        if (strlen(pipelines[i].class) == n && memcmp(pipelines[i].class, class, n) == 0)
            return &pipelines[i];
    return NULL;
}

/* AutoTokenizer.from_pretrained: the checkpoint's class, unless the model_type has another that counts more. */
static const pipeline *choose(const json_t *tokenizer, const json_t *config, const json_t *tc) {
    const char *type = json_string_value(json_object_get(config, "model_type"));
    const char *class = json_string_value(json_object_get(tc, "tokenizer_class"));
    if (!class) class = json_string_value(json_object_get(config, "tokenizer_class"));
    const pipeline *p = pipeline_of(class);
    size_t i = 0;
    while (type && i < ARRAY_LEN(known) && strcmp(known[i].model_type, type) != 0) i++;
    bool listed = type && i < ARRAY_LEN(known);
    if (listed && (!class || known[i].corrects)) p = pipeline_of(known[i].class);
    if (listed && !known[i].class) p = NULL;
    /* Llama 3's checkpoints name a class that is not theirs. */
    if (p && p->finish == finish_llama && mentions_byte_level(tokenizer)) p = NULL;
    return p;
}

static const pipeline *builder(const json_t *tokenizer, const json_t *config, const json_t *tc) {
    const pipeline *p = choose(tokenizer, config, tc);
    const json_t *model = json_object_get(tokenizer, "model");
    const char *kind = json_string_value(json_object_get(model, "type"));
    return p && json_is_object(model) && (!kind || strcmp(kind, p->kind) == 0) ? p : NULL;
}

const char *token_class_builds(const json_t *tokenizer, const json_t *config,
                               const json_t *tokenizer_config) {
    const pipeline *p = builder(tokenizer, config, tokenizer_config);
    return p ? p->class : NULL;
}

bool token_class_apply(json_t *tokenizer, const json_t *config, const json_t *tokenizer_config) {
    const pipeline *p = builder(tokenizer, config, tokenizer_config);
    return !p || build(p, tokenizer, tokenizer_config);
}
