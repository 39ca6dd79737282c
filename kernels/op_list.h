/* op_list.h - every op once: P4_OP(result, name, parameters...). Who includes this file defines P4_OP first;
 * it is undefined again at the end. Types and conventions: kernels/ops.h.
 *
 * To add an op: a line here, the functions p4_cpu_NAME and p4_cuda_NAME, and a case in a tests/test_ops*.c. A
 * column that lacks the function, or types it differently, does not compile or link. */
#ifndef P4_OP
#error "define P4_OP(result, name, ...) before including kernels/op_list.h"
#endif

/* --- device ----------------------------------------------------------------------------------- */

/* The devices of this backend that this process sees and this build can use, in order, at most `capacity`. An
 * error that says why when there is none. */
P4_OP(p4_rc, list, p4_device_info *devices, int capacity, int *count)
/* Can this process go on with device `ordinal`? An error of a GPU may leave it none of its calls: then the
 * process must end. Another failure on the way (memory is out, a shape that an op does not take) does not
 * count. */
P4_OP(p4_rc, usable, int ordinal)
/* Opens device `ordinal`. `threads` of the host (0: all that this process may use) compute on the CPU and
 * copy for CUDA. half_compute: bf16 activations (CUDA). The caller closes. */
P4_OP(p4_rc, open, p4_device **device, int ordinal, int threads, bool half_compute)
P4_OP(void, close, p4_device *device)
/* "CPU, 2 threads, OpenBLAS SkylakeX": owned by the device. */
P4_OP(const char *, describe, p4_device *device)
P4_OP(void, identify, p4_device *device, p4_device_identity *identity)
/* Bytes of one activation element: 4 or 2. */
P4_OP(int64_t, act_bytes, p4_device *device)
/* 64-byte aligned, content undefined. For the start of a run: steps do not allocate. */
P4_OP(p4_rc, alloc, p4_device *device, void **memory, int64_t bytes)
P4_OP(void, release, p4_device *device, void *memory)
/* The most device memory held at once since open, bytes: by alloc, and the device's own scratch memory. */
P4_OP(int64_t, peak_bytes, p4_device *device)
/* The device's own memory minus what alloc holds; 0 where device memory is host memory. Not what happens to
 * be free: the same run on the same kind of device gets the same answer. */
P4_OP(int64_t, room_bytes, p4_device *device)
/* h_from may be reused when this returns. */
P4_OP(void, to_device, p4_device *device, void *to, const void *h_from, int64_t bytes)
/* Waits: h_to is complete when this returns. */
P4_OP(void, to_host, p4_device *device, void *h_to, const void *from, int64_t bytes)
P4_OP(void, copy, p4_device *device, void *to, const void *from, int64_t bytes)
P4_OP(void, zero, p4_device *device, void *memory, int64_t bytes)
/* Waits for all that is queued. Returns the first run-time failure of an op since open. */
P4_OP(p4_rc, sync, p4_device *device)
/* Does work(user), which calls ops of this device. For one *recording (NULL before the first call) it must
 * call the same ops with the same arguments every time, and have no other effect. So a device may run it
 * once, record what it queues the second time, and from then on replay the record without calling `work`
 * (CUDA: a graph). Ops that wait for the device cannot be recorded: such work runs anew every time, which the
 * log says once. */
P4_OP(void, repeat, p4_device *device, p4_recording **recording, void (*work)(void *user), void *user)
/* Calls call(user, value), and, as part of work that is repeated, whenever a replay has queued what comes
 * before it. The call may queue work of others that is ordered with the device's (dist/coll.h), and no ops.
 */
P4_OP(void, callout, p4_device *device, void (*call)(void *user, int64_t value), void *user, int64_t value)
/* Waits for the device and drops the record. Call it before the memory that the record uses is released. */
P4_OP(void, forget, p4_device *device, p4_recording **recording)
/* The device's queue, for work outside the ops that must be ordered with it (dist/coll.h): the CUDA stream;
 * NULL on the CPU. */
P4_OP(void *, stream, p4_device *device)
P4_OP(void, act_to_f32, p4_device *device, float *to, const void *act, int64_t count)

/* --- linear ----------------------------------------------------------------------------------- */

/* act dst[rows, cols] = the weight in any form (dequantised, transposed back). */
P4_OP(void, weight_unpack, p4_device *device, void *dst, const p4_weight *weight)
/* The same to fp32, of a weight that is not ternary: exact. */
P4_OP(void, weight_f32, p4_device *device, float *dst, const p4_weight *weight)
/* act y[N, out] = x[N, in] w^T (+ bias: fp32 [out] or NULL); w act [out, in]. */
P4_OP(void, linear_forward, p4_device *device, void *y, const void *x, const void *w, const float *bias,
      int64_t N, int64_t in, int64_t out)
/* act dx[N, in] (= or += when accumulate) dy[N, out] w[out, in]. */
P4_OP(void, linear_backward_input, p4_device *device, void *dx, const void *dy, const void *w, int64_t N,
      int64_t in, int64_t out, bool accumulate)
/* dw (= or +=) dy^T x. */
P4_OP(void, linear_backward_weight, p4_device *device, const p4_linear_backward_weight_args *args)
/* fp32 db[out] += sum over N of the first `out` elements of the rows of dy[N, ld_dy]. */
P4_OP(void, linear_backward_bias, p4_device *device, float *db, const void *dy, int64_t N, int64_t out,
      int64_t ld_dy)
/* linear_forward into up, activate of it into h. A device may apply the function before it rounds up. */
P4_OP(void, linear_activate_forward, p4_device *device, const p4_linear_activate_forward_args *args)
/* dup = (dy w) * slope of the function at up. db sums dup before or after it is rounded. */
P4_OP(void, linear_activate_backward, p4_device *device, const p4_linear_activate_backward_args *args)
/* linear_backward_input into dh_work, and the gradient of the gated activation from there into dgate_up:
 * dgate = dh up f'(gate), dup = dh f(gate). A device may do both in one step and leave dh_work alone. */
P4_OP(void, linear_gated_backward, p4_device *device, const p4_linear_gated_backward_args *args)
/* x[N, C] rounded (not NULL): to codes, to y (act, or NULL), or to both. */
P4_OP(void, quantize_int8, p4_device *device, void *y, const p4_int8_rows *rounded, const void *x, int64_t N,
      int64_t C)
/* act y[N, C] = the values that the codes of x stand for: the bits that an op with `rounded` writes to y. */
P4_OP(void, dequantize_int8, p4_device *device, void *y, const p4_int8_rows *x, int64_t N, int64_t C)
/* y = x w^T (+ bias) of the values that the codes of x stand for and the ternary weights. A device that
 * multiplies integers sums exactly and gives y = ((float)sum * (1 / s)) * scale of the row (+ bias), in fp32
 * and in this order, each step rounded. */
P4_OP(void, linear_forward_int8, p4_device *device, const p4_linear_forward_int8_args *args)

/* act y[N, out] = x[N, in] w^T (+ bias) of weights in any form, read as they are stored where N is small. */
P4_OP(void, linear_forward_weights, p4_device *device, const p4_linear_forward_weights_args *args)

/* --- layers ----------------------------------------------------------------------------------- */

/* act x[N, C] = scale token[id] (+ position[n mod T]). */
P4_OP(void, embed_forward, p4_device *device, const p4_embed_forward_args *args)
/* dtoken[id] += scale dx, dposition[n mod T] += dx. The same bits on every run. */
P4_OP(void, embed_backward, p4_device *device, const p4_embed_backward_args *args)
/* sum = x + delta_scale delta; y = norm(sum) * (gain + gain_offset) (+ bias). Without delta the norm reads x.
 */
P4_OP(void, add_norm_forward, p4_device *device, const p4_add_norm_forward_args *args)
/* dx (= or +=) the gradient of the norm at its input. */
P4_OP(void, norm_backward, p4_device *device, const p4_norm_backward_args *args)
/* act out = a + scale b; a NULL: scale b. out may be a or b. */
P4_OP(void, add, p4_device *device, void *out, const void *a, const void *b, float scale, int64_t count)
/* y = x * rstd * (gain + gain_offset), rstd = 1 / sqrt(mean x^2 + eps), group by group. */
P4_OP(void, head_norm_forward, p4_device *device, const p4_head_norm_forward_args *args)
P4_OP(void, head_norm_backward, p4_device *device, const p4_head_norm_backward_args *args)
P4_OP(void, copy_groups, p4_device *device, const p4_copy_groups_args *args)
/* Row i of to [count] = row h_rows[i] of from, row_bytes each, a multiple of 2. h_rows may be reused when
 * this returns. */
P4_OP(void, gather_rows, p4_device *device, void *to, const void *from, const int64_t *h_rows, int64_t count,
      int64_t row_bytes)
P4_OP(void, rope, p4_device *device, const p4_rope_args *args)
P4_OP(void, attention_forward, p4_device *device, const p4_attention_forward_args *args)
P4_OP(void, attention_backward, p4_device *device, const p4_attention_backward_args *args)
/* Appends the keys and values of T new tokens to a cache, then attends to all of it. */
P4_OP(void, attention_cached, p4_device *device, const p4_attention_cached_args *args)
/* Elements of fp32 workspace; -1: no kernel of this backend supports the shape (its heads are too large). The
 * count for backward also suffices for forward, and the count of a batch for smaller batches of its shape. */
P4_OP(int64_t, attention_work_count, p4_device *device, const p4_attention_shape *shape, bool backward)
/* act y[N, F] = f(x) of x [N, F]; gated: f(gate) * up of x = gate | up [N, 2F]. */
P4_OP(void, activate, p4_device *device, void *y, const p4_int8_rows *rounded, const void *x,
      p4_activation function, bool gated, int64_t N, int64_t F)

/* The gradient of the gated activation: dgate = dh up f'(gate), dup = dh f(gate), of gate | up [N, 2F]. */
P4_OP(void, gated_backward, p4_device *device, void *dgate_up, const void *dh, const void *gate_up,
      p4_activation function, int64_t N, int64_t F)

/* --- mixtures of experts: kernels/experts.h --------------------------------------------------- */

/* Fills `routes` from act logits [N, experts]: the experts with the largest logits of each token, with the
 * softmax over all experts as their shares, or (normed) over the token's own. Logits that are NaN come last.
 */
P4_OP(void, route, p4_device *device, const p4_routes *routes, const void *logits, bool normed)
/* act dlogits [N, experts] = the gradient of the shares at the logits, from dshare [N, used]. */
P4_OP(void, route_backward, p4_device *device, void *dlogits, const float *dshare, const p4_routes *routes,
      const void *logits, bool normed)
/* act rows [N used, C]: of each pair the token's x [N, C]. */
P4_OP(void, experts_gather, p4_device *device, void *rows, const void *x, const p4_routes *routes, int64_t C)
/* act y [N, C] = the sum of the token's rows, in the order of its experts; weighted: each times its share. */
P4_OP(void, experts_combine, p4_device *device, void *y, const void *rows, const p4_routes *routes,
      bool weighted, int64_t C)
/* dshare = <dh, h> of each pair; then dh and dy become those with shares, each row times its own. */
P4_OP(void, share_backward, p4_device *device, const p4_share_backward_args *args)
/* y = x w^T, dx = dy w, dw (= or +=) dy^T x of each expert. Without rows its dw is 0, or stays. */
P4_OP(void, experts_forward, p4_device *device, const p4_experts_args *args)
P4_OP(void, experts_backward_input, p4_device *device, const p4_experts_args *args)
P4_OP(void, experts_backward_weight, p4_device *device, const p4_experts_args *args)

/* --- losses ----------------------------------------------------------------------------------- */

P4_OP(void, cross_entropy, p4_device *device, const p4_cross_entropy_args *args)
/* kl = KL(softmax(reference) || softmax(logits)); and do both rank the same class first? */
P4_OP(void, kl_divergence, p4_device *device, const p4_kl_divergence_args *args)
/* logits becomes the gradient of scale * ((1 - weight) nll + weight temperature^2 KL(teacher || student)),
 * with the softmax of logits / temperature on both sides of KL; nll is the cross-entropy at temperature 1.
 * Zero in rows that do not count and in the columns from V on. Where the teacher is cut to its top_k, what it
 * leaves out is one class: KL of k + 1 classes, at most that of all V. */
P4_OP(void, distill_loss, p4_device *device, const p4_distill_loss_args *args)
/* The `top->k` largest logits of each row and, at the temperature, the logarithms of their probabilities and
 * of what the others hold together. Of equal logits the first are taken; ids rise. */
P4_OP(void, top_k, p4_device *device, const p4_top_k_args *args)
/* With e = x + delta_scale delta - target in fp32: *sum += the sum of e^2, in double, and dx = scale e. */
P4_OP(void, squared_error, p4_device *device, const p4_squared_error_args *args)
/* The cosine distances of rows, d = 1 - <x, t> / (|x| |t|): *sum += the sum of all d, in double, and dx (= or
 * +=) the gradient of scale times that sum. A row whose squares sum to less than FLT_MIN counts as zero, and
 * has d = 1 and no gradient, as has one whose target is zero. */
P4_OP(void, cosine_distance, p4_device *device, const p4_cosine_distance_args *args)

/* --- calibration ------------------------------------------------------------------------------ */

/* double sum_sq[C] += sum over N of x[N, C]^2. */
P4_OP(void, channel_sum_sq, p4_device *device, double *sum_sq, const void *x, int64_t N, int64_t C)
/* Adds a column slice [N, width] (ld elements between rows) to *moments, which starts as {0, 0, 0, +FLT_MAX,
 * -FLT_MAX}. */
P4_OP(void, moments, p4_device *device, p4_moments *moments, const void *x, int64_t N, int64_t width,
      int64_t ld)

/* --- ternary ---------------------------------------------------------------------------------- */

/* Quantizes a weight (F32, F16, BF16; rows x cols, transposed or not) row by row: codes [rows, row_bytes]
 * with padding codes 1 (t = 0), scale fp16 [rows]. t = sign(w) where |w| >= cut, so equal magnitudes get
 * equal |t|.
 * absmean: scale = max(mean |w|, 1e-8), the mean summed in double, stored as fp16; cut = threshold * scale in
 * fp32.
 * exact: the cut with the largest S^2 / P, S = sum of h |w| and P = sum of h over the weights that it keeps
 * (h = importance, fp32 [cols], >= 0; NULL: 1), of equal ones the smallest set; scale = S / P.
 * A row of zeros, or one whose weights have no importance, gets t = 0 and the scale 0 (absmean stores 1e-8,
 * which is 0 in fp16). A scale beyond fp16 is stored as infinity and shows in scale_max. The error is
 * measured with the stored scale; without h_error (NULL) the op is faster. The CPU keeps scratch memory in
 * the device that grows with cols; when it runs out of memory, sync reports it. */
P4_OP(void, quantize, p4_device *device, uint8_t *codes, uint16_t *scale, p4_quant_error *h_error,
      const p4_weight *weight, p4_quant_method method, float threshold, const float *importance)
/* Host memory, in bytes, that the device keeps once it has quantized such a matrix, of which only shape,
 * dtype and order count; 0: none. For more than one matrix, the most. */
P4_OP(int64_t, quantize_scratch_bytes, p4_device *device, const p4_weight *weight, p4_quant_method method)
/* --- scales that are trained: docs/methods.md 3.3 ------------------------------------------------ */

/* fp32 gradient [scales of codes] = of each scale the sum of g t over its weights, in double, divided by the
 * square root of their number; g, fp32 [rows, cols], is the gradient at the weights that the codes stand for.
 */
P4_OP(void, scale_gradient, p4_device *device, float *gradient, const float *g, const p4_weight *codes)
/* learned [scales of codes] = max(learned, 0), fp32; scale = the same in fp16, with overflow to infinity.
 * h_error (NULL: not wanted): the figures of `quantize`, but for nonfinite, which is 0, of w, fp32 [rows,
 * cols], and what codes and scale stand for. Reads the codes alone of `codes`. */
P4_OP(void, store_scales, p4_device *device, uint16_t *scale, float *learned, p4_quant_error *h_error,
      const p4_weight *codes, const float *w)

/* --- quantizing under H: types in kernels/ops.h, formulas in docs/methods.md 1 -------------------- */

P4_OP(void, hessian_add, p4_device *device, const p4_hessian_add_args *args)
P4_OP(void, hessian_finish, p4_device *device, const p4_hessian_finish_args *args)
/* With d = damping * mean of the diagonal entries that are not 0, D diagonal and F unit upper triangular:
 * h + d I = F D F', where inputs that are always 0 (diagonal 0) count as independent of all others. Computed
 * in double; feedback = F above the diagonal, the rest of it is undefined. Not definite: a pivot is not
 * positive; raise the damping. */
P4_OP(void, hessian_factor, p4_device *device, const p4_hessian_factor_args *args)
/* fp32 w[rows, cols] = the weight in any float form, 0 in columns where importance[cols] is 0. */
P4_OP(void, hessian_weights, p4_device *device, float *w, const p4_weight *weight, const float *importance)
/* From left to right t_j = the trit nearest to (w_j + sum over i < j of (w_i - scale t_i) F_ij) / scale, with
 * F = rows->feedback. Reads w and scale, writes t. A row of scale 0 gets t = 0. */
P4_OP(void, gptq, p4_device *device, const p4_hessian_rows *rows)
/* From w and t: wh, fit, and the scale that is the best for t, w h t' / t h t'. A row for which that is not
 * positive keeps its scale. */
P4_OP(void, descend_start, p4_device *device, const p4_hessian_rows *rows)
/* Coordinate descent after descend_start: from left to right each t_j becomes the one of -1, 0, 1 with the
 * smallest error (w - scale t) h (w - scale t)', unless that improves it by less than 1e-5 scale^2 h_jj; then
 * the best scale for the new t. *h_changed: the number of trits that changed. Rows of scale 0 are left alone.
 */
P4_OP(void, descend, p4_device *device, const p4_hessian_rows *rows, int64_t *h_changed)
/* The codes of t, as `quantize` writes them, and its figures for the weight that they stand for. */
P4_OP(void, pack_trits, p4_device *device, uint8_t *codes, p4_quant_error *h_error, const float *t,
      const uint16_t *scale, const p4_weight *weight)

/* 2-bit codes [rows, (cols + 3) / 4] -> base 3, five trits u = t + 1 a byte, [rows, (cols + 4) / 5]: byte =
 * sum of u_k 3^(4-k), k = 0 first; the missing trits of a row's last byte are u = 1 (t = 0). */
P4_OP(void, pack_base3, p4_device *device, uint8_t *packed, const uint8_t *codes, int64_t rows, int64_t cols)
/* The inverse. Bytes above 242 do not occur: the readers of foreign files refuse them. */
P4_OP(void, unpack_base3, p4_device *device, uint8_t *codes, const uint8_t *packed, int64_t rows,
      int64_t cols)

/* --- optimizer --------------------------------------------------------------------------------
 * State (void *) is kept in fp32, or with `half` in bf16, rounded at random with numbers->key as
 * kernels/state.h describes: an op computes in fp32 and rounds the state that it stores, nothing else. */

/* *sum += sum of squares of g, in double. */
P4_OP(void, add_sq_norm, p4_device *device, double *sum, const float *g, int64_t count)
/* *sum += x[0] + x[1] + ..., in double. */
P4_OP(void, add_sum, p4_device *device, double *sum, const float *x, int64_t count)
/* Clipping by the global norm: result = the sum of all errors, and norm = sqrt(the sum of all
 * squares) / divisor; g_scale = 1 / divisor, times clip / norm where norm is larger than clip. In double, in
 * the order of ranks. If error or norm is not finite, g_scale is NaN. */
P4_OP(void, clip, p4_device *device, const p4_clip_args *args)
/* fp32 sum += addend. */
P4_OP(void, add_f32, p4_device *device, float *sum, const float *addend, int64_t count)
/* Grokfast: ema = first ? g : alpha*ema + (1-alpha)*g; g += lambda*ema. In bf16 the low half of an element's
 * draw rounds ema. */
P4_OP(void, grokfast, p4_device *device, const p4_grokfast_args *args)
/* AdamW on `items` arrays (h_items may be reused when this returns), g multiplied by g_scale first: m, v
 * updated, mhat = m*m_correction, vhat = v*v_correction; w -= lr*(mhat/(sqrt(vhat)+eps) + decay*w). In bf16
 * the low half of an element's draw rounds m, the high half v. If g_scale is NaN, nothing changes.
 * Reads all numbers but `first` and `divisor`. */
P4_OP(void, adamw, p4_device *device, const p4_adamw_item *h_items, int64_t items, float beta1, float beta2,
      float eps, bool half, const p4_step_numbers *numbers)
/* Muon, g multiplied by g_scale first: buf = momentum*buf + g; u = g + momentum*buf; X = u / (|u| + 1e-7), 5
 * steps of Newton-Schulz; w -= lr * (0.2*sqrt(max(rows, cols)) * X + decay*w). On CUDA the squares of u must
 * lie within fp32's range. In bf16 the low half of an element's draw rounds buf. */
P4_OP(void, muon, p4_device *device, const p4_muon_args *args)
/* At most 1 GiB, or what one matrix needs if that is more (CUDA: X and its successor, 2 m^2, m the shorter
 * side, in the compute type; CPU: the same of one matrix in fp32). */
P4_OP(int64_t, muon_work_count, p4_device *device, int64_t items, int64_t rows, int64_t cols)

#undef P4_OP
