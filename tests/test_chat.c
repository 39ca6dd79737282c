/* Conversations of JSONL files, rendered by the chat template of a tokenizer (io/text/chat.h), against the
 * reference's texts (tests/fixtures/make_chats.py). */
#include "dataset_world.h"
#include "io/file/files.h"
#include "io/json/read.h"
#include "src/phase4/types.h"

#include <cjson/cJSON.h>

/* A tokenizer_config.json in `folder` of the world. */
static void put_config(const char *folder, const char *template, const char *bos, const char *eos)
{
    char name[64];
    cJSON *root = cJSON_CreateObject(), *token = cJSON_AddObjectToObject(root, "eos_token");
    cJSON_AddStringToObject(root, "bos_token", bos);
    cJSON_AddStringToObject(token, "content", eos);
    if (template != NULL) {
        cJSON_AddStringToObject(root, "chat_template", template);
    }
    char *json = cJSON_Print(root);
    snprintf(name, sizeof name, "%s/tokenizer_config.json", folder);
    put_text(name, json);
    cJSON_free(json);
    cJSON_Delete(root);
}

/* The text of the one line of a file, on the heap; NULL after an error. */
static char *read_line(const char *path, const p4_json_reading *reading)
{
    p4_documents *documents = NULL;
    p4_document document;
    char *text = NULL;
    p4_error_clear();
    EXPECT_OK(p4_documents_open(&documents, path));
    p4_documents_read_json(documents, reading);
    if (p4_documents_next(documents, &document) == P4_OK) {
        text = p4_format("%.*s", (int)document.bytes, document.text);
    }
    p4_documents_close(documents);
    return text;
}

static char *render(const char *directory, p4_chat_kind kind, const char *field, const char *line)
{
    p4_chat *chat = NULL;
    EXPECT_OK(p4_chat_open(&chat, directory, kind));
    char *text =
        read_line(put_text("line.jsonl", line), &(p4_json_reading){.opt_field = field, .chat = chat});
    p4_chat_close(chat);
    return text;
}

static void expect_text(const char *what, char *got, const char *expected)
{
    EXPECT(got != NULL, "%s: %s", what, p4_last_error());
    EXPECT(got == NULL || strcmp(got, expected) == 0, "%s:\n got \"%s\"\nwant \"%s\"", what, got, expected);
    free(got);
}

/* ---- against the reference ---- */

static const char *string_of(const cJSON *object, const char *key)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
}

static void check_case(const char *name, const cJSON *each)
{
    cJSON *object = cJSON_CreateObject();
    cJSON_AddItemReferenceToObject(object, "messages", cJSON_GetObjectItemCaseSensitive(each, "messages"));
    char *line = cJSON_PrintUnformatted(object);
    char *got = render(at(name), P4_CHAT_AUTO, NULL, line);
    const char *expected = string_of(each, "text");
    if (expected != NULL) {
        expect_text(line, got, expected);
    } else {
        EXPECT(got == NULL, "%s: %s was rendered", name, line);
        EXPECT(strstr(p4_last_error(), "expected \"") != NULL, "%s", p4_last_error());
        free(got);
    }
    cJSON_free(line);
    cJSON_Delete(object);
}

static void templates_give_the_reference_texts(void)
{
    static const char *const names[] = {"chatml", "chatml_system", "chatml_bos", "chatml_thinking",
                                        "llama3", "llama3_dated",  "llama2"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char *json = NULL;
        size_t bytes = 0;
        cJSON *root = NULL;
        const cJSON *each;
        char *path = p4_format("%s/chats/%s.json", P4_FIXTURES, names[i]);
        EXPECT_OK(p4_file_read(&json, &bytes, path, 1 << 20));
        EXPECT_OK(p4_json_read(&root, json, bytes, path));
        put_config(names[i], string_of(root, "template"), string_of(root, "bos"), string_of(root, "eos"));
        cJSON_ArrayForEach(each, cJSON_GetObjectItemCaseSensitive(root, "cases"))
        {
            check_case(names[i], each);
        }
        cJSON_Delete(root);
        free(json);
        free(path);
    }
}

/* ---- forms of data ---- */

static void conversations_are_found_in_each_form(void)
{
    static const char expected[] = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n";
    static const struct {
        const char *line, *field;
    } forms[] = {
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"}]}",
         NULL},
        {"{\"conversations\":[{\"from\":\"human\",\"value\":\"a\"},{\"from\":\"gpt\",\"value\":\"b\"}]}", ""},
        {"{\"instruction\":\"a\",\"input\":\"\",\"output\":\"b\"}", NULL},
        {"{\"text\":\"no\",\"chosen\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"}]},"
         "{\"role\":\"assistant\",\"content\":\"b\"}]}",
         "chosen"},
        {"{\"said\":\"<|im_start|>user\\na<|im_end|>\\n<|im_start|>assistant\\nb<|im_end|>\\n\"}", "said"},
    };
    put_config("plain", NULL, "", "<|im_end|>");
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        expect_text(forms[i].line, render(at("plain"), P4_CHAT_CHATML, forms[i].field, forms[i].line),
                    expected);
    }
    expect_text("input below the instruction",
                render(at("plain"), P4_CHAT_CHATML, NULL,
                       "{\"instruction\":\"a\",\"input\":\"c\",\"output\":\"b\",\"system\":\"s\"}"),
                "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\na\n\nc<|im_end|>\n"
                "<|im_start|>assistant\nb<|im_end|>\n");
    expect_text("a text wins over a conversation",
                render(at("plain"), P4_CHAT_CHATML, NULL, "{\"messages\":[],\"text\":\"t\"}"), "t");
}

/* In either quotes, with escapes; what a template takes from the conversation is no default. */
static void default_system_messages_are_read(void)
{
    static const char line[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}";
    static const struct {
        const char *template, *system;
    } cases[] = {
        {"{{ \"<|im_start|>system\\nYou're \\\"it\\\".<|im_end|>\\n\" }}", "You're \"it\"."},
        {"{{ '<|im_start|>system\\nIt\\'s\\nso.<|im_end|>\\n' }}", "It's\nso."},
        {"{{ '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}"
         "{{- \"<|im_start|>system\nYes{<|im_end|>\n\" }}",
         "Yes{"},
        {"{{- '<|im_start|>system\\n' }}{% if x %}{{- messages[0].content + '<|im_end|>' }}", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char expected[256];
        put_config("system", cases[i].template, "", "<|im_end|>");
        snprintf(expected, sizeof expected, "%s%s%s<|im_start|>user\na<|im_end|>\n",
                 cases[i].system != NULL ? "<|im_start|>system\n" : "",
                 cases[i].system != NULL ? cases[i].system : "",
                 cases[i].system != NULL ? "<|im_end|>\n" : "");
        expect_text(cases[i].template, render(at("system"), P4_CHAT_AUTO, NULL, line), expected);
    }
}

/* chat_template.jinja wins over tokenizer_config.json, of whose list "default" counts. */
static void templates_are_found_where_they_lie(void)
{
    static const char line[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}";
    put_text("list/tokenizer_config.json",
             "{\"bos_token\":\"<s>\",\"eos_token\":\"</s>\",\"chat_template\":[{\"name\":\"tool_use\","
             "\"template\":\"<|im_start|>\"},{\"name\":\"default\",\"template\":\"<|start_header_id|>\"}]}");
    expect_text("the list", render(at("list"), P4_CHAT_AUTO, NULL, line),
                "<s><|start_header_id|>user<|end_header_id|>\n\na<|eot_id|>");
    put_text("list/chat_template.jinja", "[INST] <<SYS>>");
    expect_text("the file", render(at("list"), P4_CHAT_AUTO, NULL, line), "<s>[INST] a [/INST]");
}

/* ---- refusals ---- */

static void expect_refusal(const char *directory, const char *field, const char *line, const char *part)
{
    char *got = render(at(directory), P4_CHAT_AUTO, field, line);
    EXPECT(got == NULL, "%s was rendered as \"%s\"", line, got);
    EXPECT(strstr(p4_last_error(), part) != NULL, "\"%s\" lacks \"%s\"", p4_last_error(), part);
    EXPECT(strstr(p4_last_error(), "line.jsonl line 1") != NULL, "\"%s\"", p4_last_error());
    free(got);
}

static void what_cannot_be_rendered_is_refused(void)
{
    static const char line[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}";
    static const struct {
        const char *template, *part;
    } templates[] = {
        {NULL, "has no chat template; key \"chat_template\" can name one"},
        {"{{ '<start_of_turn>' }}", "writes \"<start_of_turn>\""},
        {"{{ '[INST]' }}", "writes \"[INST]\""},
        {"<|im_start|>user<|im_sep|>", "writes \"<|im_sep|>\""},
        {"<|im_start|>{{ '<think>' }}", "other rules than Qwen3's"},
        {"{{ \"<|im_start|>system\\n\" + system_message + \"<|im_end|>\\n\" }}", "takes from elsewhere"},
        {"{{ '<|im_start|>system\n' + default + '<|im_end|>\n' }}", "takes from elsewhere"},
        {"{{ messages }}", "is none of ChatML"},
    };
    for (size_t i = 0; i < sizeof templates / sizeof templates[0]; i++) {
        put_config("odd", templates[i].template, "<s>", "</s>");
        expect_refusal("odd", NULL, line, templates[i].part);
    }
    put_config("odd", "<|im_start|>", "", "");
    expect_refusal("odd", NULL, "{\"messages\":[]}", "messages holds no messages");
    expect_refusal("odd", NULL, "{\"messages\":[3]}", "messages[0] names no role");
    expect_refusal("odd", NULL, "{\"messages\":[{\"role\":\"tool\",\"content\":\"a\"}]}", "role \"tool\"");
    expect_refusal("odd", NULL, "{\"messages\":[{\"role\":\"user\"}]}", "messages[0] has no text");
    expect_refusal("odd", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]}",
                   "a part that is no text");
    expect_refusal("odd", NULL, "{\"instruction\":\"a\"}", "is no conversation");
    expect_refusal("odd", "body", "{\"text\":\"a\"}", "no field \"body\"");
    expect_refusal("odd", "body", "{\"body\":1}", "neither a string nor a list");
    put_config("odd", "<|start_header_id|>", "", "");
    expect_refusal("odd", NULL, line, "has no bos_token");
}

int main(void)
{
    world_begin();
    templates_give_the_reference_texts();
    conversations_are_found_in_each_form();
    default_system_messages_are_read();
    templates_are_found_where_they_lie();
    what_cannot_be_rendered_is_refused();
    world_end();
    return TEST_END();
}
