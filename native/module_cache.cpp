// SPDX-License-Identifier: Apache-2.0
// Python's view of the cache: its memory, writing to it, attention and search over it. Block tables
// and slots are checked here against the store they point into.
#include "bindings.h"

namespace freehold {
namespace {

KVStore make_kv_store(const std::vector<std::vector<int>>& layers, int64_t num_blocks,
                      int block_size, const std::string& dtype) {
  const KVType type = dtype == "f32"    ? KVType::F32
                      : dtype == "f16"  ? KVType::F16
                      : dtype == "bf16" ? KVType::BF16
                                        : KVType::Q8_0;
  need(dtype == "q8_0" || type != KVType::Q8_0, "unknown cache type");
  need(block_size > 0 && block_size <= 4096 && block_size % 16 == 0,
       "block_size must be a multiple of 16");
  need(num_blocks > 0 && num_blocks < (int64_t(1) << 27), "number of blocks out of range");
  need(layers.size() <= 4096, "too many cache layers");
  std::vector<KVShape> shapes;
  for (const auto& l : layers) {
    need(l.size() == 3, "a layer is (kv_heads, key_dim, value_dim)");
    need(l[0] > 0 && l[0] <= 4096 && l[1] > 0 && l[1] <= kMaxHeadDim && l[2] >= 0 &&
             l[2] <= kMaxHeadDim,
         "cache layer shape out of range");
    need(type != KVType::Q8_0 || (l[1] % 32 == 0 && l[2] % 32 == 0),
         "q8_0 needs head sizes divisible by 32");
    shapes.push_back({l[0], l[1], l[2]});
  }
  return KVStore(shapes, num_blocks, block_size, type);
}

void copy_blocks(KVStore& store, const Ints1& src, const Ints1& dst) {
  need(src.shape(0) == dst.shape(0), "as many sources as destinations");
  for (size_t i = 0; i < src.shape(0); ++i)
    need(src.data()[i] >= 0 && dst.data()[i] >= 0 && src.data()[i] < store.num_blocks() &&
             dst.data()[i] < store.num_blocks(),
         "block outside the cache");
  store.copy_blocks(src.data(), dst.data(), src.shape(0));
}

// Blocks that exist, and as many rows of bytes, each as long as a block.
template <class A>
void check_block_bytes(const KVStore& store, const Ints1& blocks, const A& data) {
  for (size_t i = 0; i < blocks.shape(0); ++i)
    need(blocks.data()[i] >= 0 && blocks.data()[i] < store.num_blocks(), "block outside the cache");
  need(data.shape(0) == blocks.shape(0), "one row of bytes per block");
  need(data.shape(1) == store.block_nbytes(), "a row of bytes is as long as a block");
}

void read_blocks(const KVStore& store, const Ints1& blocks, const BytesOut2& out) {
  check_block_bytes(store, blocks, out);
  store.read_blocks(blocks.data(), blocks.shape(0), out.data());
}

void write_blocks(KVStore& store, const Ints1& blocks, const Bytes2& data) {
  check_block_bytes(store, blocks, data);
  store.write_blocks(blocks.data(), blocks.shape(0), data.data());
}

const KVLayer& layer_of(const KVStore& store, int i) {
  need(i >= 0 && size_t(i) < store.layers().size(), "no such cache layer");
  return store.layers()[size_t(i)];
}

void write_kv(Context& c, const KVStore& store, int layer, const Floats2& k,
              const std::optional<Floats2>& v, const Ints1& slots) {
  const KVLayer& kv = layer_of(store, layer);
  const int64_t rows = int64_t(slots.shape(0));
  need(v.has_value() == (kv.value_dim > 0), "values go to layers that store some, and to no other");
  need(int64_t(k.shape(0)) == rows && (!v || int64_t(v->shape(0)) == rows), "one slot per row");
  const float* kp =
      rows_of(k, int64_t(kv.num_kv_heads) * kv.key_dim, "key width does not match the cache");
  const float* vp = v ? rows_of(*v, int64_t(kv.num_kv_heads) * kv.value_dim,
                                "value width does not match the cache")
                      : nullptr;
  for (int64_t i = 0; i < rows; ++i)
    need(slots.data()[i] >= 0 && slots.data()[i] < kv.num_blocks * kv.block_size,
         "slot outside the cache");
  nb::gil_scoped_release nogil;
  std::lock_guard<std::mutex> lock(c.mutex());
  c.write_kv(kv, slots.data(), rows, kp, k.stride(0), vp, v ? v->stride(0) : 0);
}

// The sequences of a batch that have rows; their tables point into the cache.
std::vector<Context::Sequence> sequences_of(const KVLayer& kv, int64_t rows,
                                            const Ints1& query_start, const Ints1& seq_lens,
                                            const Ints2& block_tables) {
  const int64_t count = int64_t(seq_lens.shape(0)), width = int64_t(block_tables.shape(1));
  need(int64_t(query_start.shape(0)) == count + 1 && int64_t(block_tables.shape(0)) >= count,
       "batch arrays disagree");
  const int32_t* start = query_start.data();
  need(start[0] == 0 && start[count] == rows, "query_start_loc does not cover the rows");
  std::vector<Context::Sequence> sequences;
  for (int64_t s = 0; s < count; ++s) {
    const int64_t n = int64_t(start[s + 1]) - start[s], length = seq_lens.data()[s];
    need(n >= 0 && n <= length && start[s + 1] <= rows, "sequence length and rows disagree");
    if (n == 0) continue;
    const int32_t* table = block_tables.data() + s * width;
    const int64_t blocks = (length + kv.block_size - 1) / kv.block_size;
    need(blocks <= width, "block table too short for the sequence");
    for (int64_t b = 0; b < blocks; ++b)
      need(table[b] >= 0 && table[b] < kv.num_blocks, "block outside the cache");
    sequences.push_back({start[s], n, length, table});
  }
  return sequences;
}

// A row of bits for every row of the batch, long enough for the longest sequence.
template <class A>
auto bits_of(const A& bits, int64_t rows, const std::vector<Context::Sequence>& sequences) {
  need(int64_t(bits.shape(0)) == rows, "one row of selected positions per query");
  for (const Context::Sequence& s : sequences)
    need(s.length <= int64_t(bits.shape(1)) * 64, "too few selected positions for the sequence");
  return bits.data();
}

void attention(Context& c, const Floats2& q, const KVStore& store, int layer, const FloatsOut& out,
               const Ints1& query_start, const Ints1& seq_lens, const Ints2& block_tables,
               int num_heads, int value_dim, float scale, int window, int chunk, float softcap,
               const std::optional<Floats1>& sinks, const std::optional<Bits>& selected) {
  const KVLayer& kv = layer_of(store, layer);
  need(num_heads > 0 && num_heads <= 65536 && num_heads % kv.num_kv_heads == 0,
       "heads do not divide");
  need(window >= 0 && chunk >= 0 && softcap >= 0.0f,
       "window, chunk and softcap must not be negative");
  need(kv.value_dim ? value_dim == kv.value_dim : value_dim > 0 && value_dim <= kv.key_dim,
       "value_dim does not match the cache");
  need(!sinks || int64_t(sinks->shape(0)) == num_heads, "one sink per head");
  const int64_t rows = int64_t(q.shape(0));
  AttentionTask t{};
  t.kv = &kv;
  t.q = rows_of(q, int64_t(num_heads) * kv.key_dim, "query width does not match the cache");
  t.ldq = q.stride(0);
  t.out = out_rows(out, rows, int64_t(num_heads) * value_dim, "output shape does not match");
  t.ldo = out.stride(0);
  t.num_heads = num_heads;
  t.value_dim = value_dim;
  t.scale = scale;
  t.softcap = softcap;
  t.window = window;
  t.chunk = chunk;
  t.sinks = sinks ? sinks->data() : nullptr;
  const auto sequences = sequences_of(kv, rows, query_start, seq_lens, block_tables);
  if (selected) {
    t.selected = bits_of(*selected, rows, sequences);
    t.lds = int64_t(selected->shape(1));
  }
  nb::gil_scoped_release nogil;
  std::lock_guard<std::mutex> lock(c.mutex());
  c.attention(t, sequences);
}

void top_keys(Context& c, const Floats2& q, const Floats2& weights, const KVStore& store, int layer,
              const BitsOut& bits, const Ints1& query_start, const Ints1& seq_lens,
              const Ints2& block_tables, int64_t count) {
  const KVLayer& kv = layer_of(store, layer);
  const int64_t rows = int64_t(q.shape(0)), heads = int64_t(weights.shape(1));
  need(kv.num_kv_heads == 1, "keys are searched in a cache of one head");
  need(count > 0, "at least one key must be kept");
  need(heads > 0 && heads <= 65536, "heads out of range");
  need(int64_t(weights.shape(0)) == rows, "one row of weights per query");
  IndexTask t{};
  t.kv = &kv;
  t.q = rows_of(q, heads * kv.key_dim, "query width does not match the cache");
  t.ldq = q.stride(0);
  t.weights = rows_of(weights, heads, "rows must be contiguous");
  t.ldw = weights.stride(0);
  t.heads = int(heads);
  const auto sequences = sequences_of(kv, rows, query_start, seq_lens, block_tables);
  uint64_t* b = bits_of(bits, rows, sequences);
  nb::gil_scoped_release nogil;
  std::lock_guard<std::mutex> lock(c.mutex());
  c.top_keys(t, sequences, count, b, int64_t(bits.shape(1)));
}

}  // namespace

void bind_cache(nb::module_& m, nb::class_<Context>& context) {
  nb::class_<KVStore>(m, "KVStore")
      .def(nb::new_(&make_kv_store), nb::arg("layers"), nb::arg("num_blocks"),
           nb::arg("block_size"), nb::arg("dtype"))
      .def("copy_blocks", &copy_blocks)
      .def("read_blocks", &read_blocks)
      .def("write_blocks", &write_blocks)
      .def_prop_ro("block_nbytes", &KVStore::block_nbytes)
      .def_prop_ro("nbytes", &KVStore::nbytes);
  context
      .def("write_kv", &write_kv, nb::arg("store"), nb::arg("layer"), nb::arg("k"),
           nb::arg("v").none(), nb::arg("slots"))
      .def("attention", &attention, nb::arg("q"), nb::arg("store"), nb::arg("layer"),
           nb::arg("out"), nb::arg("query_start"), nb::arg("seq_lens"), nb::arg("block_tables"),
           nb::arg("num_heads"), nb::arg("value_dim"), nb::arg("scale"), nb::arg("window"),
           nb::arg("chunk"), nb::arg("softcap"), nb::arg("sinks").none(),
           nb::arg("selected").none())
      .def("top_keys", &top_keys);
}

}  // namespace freehold
