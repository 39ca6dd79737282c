/* cells.h - numbers in the columns of tables for people, the same in every program. All Local. */
#ifndef P4_CELLS_H
#define P4_CELLS_H

#include "src/leaf/base.h"

enum { P4_CELL_BYTES = 48, P4_CELL_COLUMN = 12 };

/* The rows of an evaluation. */
#define P4_ROW_LOSS "loss (nats per token)"
#define P4_ROW_BITS "bits per byte"
#define P4_ROW_WORDS "perplexity per word"
#define P4_ROW_ACCURACY "next token guessed right"
#define P4_ROW_AGREEMENT "agrees with the original"
#define P4_ROW_KL "KL to the original (nats)"

/* Behind a verdict, where the original predicts no better than a model that has learned nothing. */
#define P4_GUESSES_TEXT "; but the original is no better than guessing, so this says little"

/* A number with its decimals and unit, "-" when it was not measured. Returns text. */
const char *p4_cell(char text[P4_CELL_BYTES], double value, int decimals, const char *unit);
/* From `low` to `high`, with as many decimals, `most` at most, as a column has room for. Returns text. */
const char *p4_cell_interval(char text[P4_CELL_BYTES], double low, double high, int most, const char *unit);

#endif
