// What the operators use of oneDNN's C interface, version 3, declared here because Paddle's wheel ships
// the library (libdnnl.so.3) without its headers. oneDNN keeps this interface throughout a version;
// verify() in plan.cpp asks the library itself whether the numbers below mean what they are named.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

struct dnnl_engine;
struct dnnl_stream;
struct dnnl_memory;
struct dnnl_memory_desc;
struct dnnl_primitive;
struct dnnl_primitive_desc;
struct dnnl_primitive_attr;
struct dnnl_post_ops;

using dnnl_dims_t = int64_t[12];

struct dnnl_version_t {
  int major, minor, patch;
};

struct dnnl_exec_arg_t {
  int arg;
  dnnl_memory* memory;
};

const dnnl_version_t* dnnl_version();
const char* dnnl_status2str(int);
const char* dnnl_dt2str(int);
const char* dnnl_fmt_tag2str(int);
const char* dnnl_prop_kind2str(int);
const char* dnnl_alg_kind2str(int);
const char* dnnl_scratchpad_mode2str(int);
const char* dnnl_engine_kind2str(int);

int dnnl_engine_create(dnnl_engine**, int kind, size_t index);
int dnnl_engine_destroy(dnnl_engine*);
int dnnl_stream_create(dnnl_stream**, dnnl_engine*, unsigned flags);
int dnnl_stream_destroy(dnnl_stream*);
int dnnl_stream_wait(dnnl_stream*);

int dnnl_memory_desc_create_with_tag(dnnl_memory_desc**, int ndims, const dnnl_dims_t, int type, int tag);
int dnnl_memory_desc_create_with_strides(dnnl_memory_desc**, int ndims, const dnnl_dims_t, int type,
                                         const dnnl_dims_t strides);
int dnnl_memory_desc_clone(dnnl_memory_desc**, const dnnl_memory_desc*);
int dnnl_memory_desc_destroy(dnnl_memory_desc*);
int dnnl_memory_desc_equal(const dnnl_memory_desc*, const dnnl_memory_desc*);
size_t dnnl_memory_desc_get_size(const dnnl_memory_desc*);

int dnnl_memory_create(dnnl_memory**, const dnnl_memory_desc*, dnnl_engine*, void* data);
int dnnl_memory_set_data_handle(dnnl_memory*, void* data);
int dnnl_memory_destroy(dnnl_memory*);

int dnnl_primitive_attr_create(dnnl_primitive_attr**);
int dnnl_primitive_attr_set_scratchpad_mode(dnnl_primitive_attr*, int mode);
int dnnl_primitive_attr_set_post_ops(dnnl_primitive_attr*, const dnnl_post_ops*);
int dnnl_primitive_attr_destroy(dnnl_primitive_attr*);
int dnnl_post_ops_create(dnnl_post_ops**);
int dnnl_post_ops_append_sum(dnnl_post_ops*, float scale, int32_t zero_point, int type);
int dnnl_post_ops_append_eltwise(dnnl_post_ops*, int alg_kind, float alpha, float beta);
int dnnl_post_ops_destroy(dnnl_post_ops*);

int dnnl_convolution_forward_primitive_desc_create(
    dnnl_primitive_desc**, dnnl_engine*, int prop_kind, int alg_kind, const dnnl_memory_desc* src,
    const dnnl_memory_desc* weights, const dnnl_memory_desc* bias, const dnnl_memory_desc* dst,
    const dnnl_dims_t strides, const dnnl_dims_t dilates, const dnnl_dims_t padding_l,
    const dnnl_dims_t padding_r, const dnnl_primitive_attr*);
int dnnl_convolution_backward_data_primitive_desc_create(
    dnnl_primitive_desc**, dnnl_engine*, int alg_kind, const dnnl_memory_desc* diff_src,
    const dnnl_memory_desc* weights, const dnnl_memory_desc* diff_dst, const dnnl_dims_t strides,
    const dnnl_dims_t dilates, const dnnl_dims_t padding_l, const dnnl_dims_t padding_r,
    const dnnl_primitive_desc* hint_forward, const dnnl_primitive_attr*);
int dnnl_convolution_backward_weights_primitive_desc_create(
    dnnl_primitive_desc**, dnnl_engine*, int alg_kind, const dnnl_memory_desc* src,
    const dnnl_memory_desc* diff_weights, const dnnl_memory_desc* diff_bias,
    const dnnl_memory_desc* diff_dst, const dnnl_dims_t strides, const dnnl_dims_t dilates,
    const dnnl_dims_t padding_l, const dnnl_dims_t padding_r, const dnnl_primitive_desc* hint_forward,
    const dnnl_primitive_attr*);
int dnnl_matmul_primitive_desc_create(dnnl_primitive_desc**, dnnl_engine*, const dnnl_memory_desc* src,
                                      const dnnl_memory_desc* weights, const dnnl_memory_desc* bias,
                                      const dnnl_memory_desc* dst, const dnnl_primitive_attr*);
int dnnl_reorder_primitive_desc_create(dnnl_primitive_desc**, const dnnl_memory_desc* src, dnnl_engine*,
                                       const dnnl_memory_desc* dst, dnnl_engine*,
                                       const dnnl_primitive_attr*);
const dnnl_memory_desc* dnnl_primitive_desc_query_md(const dnnl_primitive_desc*, int what, int index);
int dnnl_primitive_desc_destroy(dnnl_primitive_desc*);

int dnnl_primitive_create(dnnl_primitive**, const dnnl_primitive_desc*);
int dnnl_primitive_execute(const dnnl_primitive*, dnnl_stream*, int count, const dnnl_exec_arg_t*);
int dnnl_primitive_destroy(dnnl_primitive*);
}

namespace nextvit::dnnl {

enum Status { SUCCESS = 0, UNIMPLEMENTED = 3 };
enum Type { BF16 = 2, F32 = 3 };
enum Tag { ANY = 1, A = 2, ABCD = 5, ABCDE = 6 };  // the library chooses; plain layouts of 1, 4, 5 axes
enum Kind { CPU = 1, IN_ORDER = 1, FORWARD_TRAINING = 64, DIRECT = 1, RELU = 32, USER_SCRATCHPAD = 1 };
// what a primitive's description is asked for
enum Query {
  QUERY_SRC = 129,
  QUERY_DIFF_SRC = 130,
  QUERY_WEIGHTS = 131,
  QUERY_DIFF_WEIGHTS = 132,
  QUERY_DST = 133,
  QUERY_DIFF_DST = 134,
  QUERY_SCRATCHPAD = 136
};
// the places of a primitive's arguments
enum Argument {
  SRC = 1,
  DST = 17,
  WEIGHTS = 33,
  BIAS = 41,
  SCRATCHPAD = 80,
  DIFF_SRC = 129,
  DIFF_DST = 145,
  DIFF_WEIGHTS = 161,
  DIFF_BIAS = 169
};

}  // namespace nextvit::dnnl
