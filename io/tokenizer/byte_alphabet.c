#include "io/tokenizer/byte_alphabet.h"

#include <utf8proc.h>

#include "io/utf8/utf8.h"

/* Bytes that print as themselves; the other 68 are written as U+0100, U+0101, ... in increasing order. */
static bool prints_as_itself(unsigned char byte)
{
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
}

size_t p4_tok_byte_char(unsigned char byte, char to[4])
{
    int32_t c = byte;
    if (!prints_as_itself(byte)) {
        c = byte <= 0x20 ? 0x100 + byte : byte <= 0xA0 ? 0x100 + byte - 0x7F + 0x21 : 0x143;
    }
    return (size_t)utf8proc_encode_char(c, (utf8proc_uint8_t *)to);
}

bool p4_tok_char_byte(const char *data, size_t bytes, unsigned char *byte, size_t *length)
{
    if (bytes == 0) {
        return false;
    }
    int32_t c = p4_utf8_decode(data, bytes, length);
    if (c >= 0x100 && c <= 0x143) {
        int32_t k = c - 0x100;
        *byte = (unsigned char)(k <= 0x20 ? k : k == 0x43 ? 0xAD : k - 0x21 + 0x7F);
        return true;
    }
    *byte = (unsigned char)c;
    return c < 0x100 && prints_as_itself((unsigned char)c);
}
