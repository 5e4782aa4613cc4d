// The plain C interface: exceptions end here, as a status and a sentence.
#include <memory>
#include <new>
#include <string>

#include "error.h"
#include "segmenter.h"
#include "vocabulary.h"

struct pcaseg_segmenter {
  pcaseg::Segmenter segmenter;
};

namespace {

thread_local std::string last_error;

pcaseg_status failed(pcaseg_status status, const char* sentence) noexcept {
  try {
    last_error = sentence;
  } catch (...) {
    last_error.clear();
  }
  return status;
}

/// Runs `work`, and turns what it throws into a status.
template <class Work>
pcaseg_status guarded(Work work) noexcept {
  try {
    work();
    return PCASEG_OK;
  } catch (const pcaseg::Error& error) {
    return failed(error.status, error.what());
  } catch (const std::bad_alloc&) {
    return failed(PCASEG_FAILED, "memory: not enough; reduce the frame, the batch or the number of classes");
  } catch (const std::exception& error) {
    return failed(PCASEG_FAILED, error.what());
  } catch (...) {
    return failed(PCASEG_FAILED, "libpcaseg: failed for an unknown reason; report this");
  }
}

template <class Pointer>
Pointer given(Pointer pointer, const char* name) {
  if (pointer == nullptr) throw pcaseg::Error(PCASEG_BAD_ARGUMENT, std::string(name) + " is NULL; give one");
  return pointer;
}

}  // namespace

const char* pcaseg_version(void) { return PCASEG_VERSION; }

const char* pcaseg_error(void) { return last_error.c_str(); }

pcaseg_status pcaseg_open(const char* bundle, const pcaseg_options* options, pcaseg_segmenter** segmenter) {
  return guarded([&] {
    *given(segmenter, "segmenter") = nullptr;
    const std::string path = given(bundle, "bundle");
    *segmenter = new pcaseg_segmenter{pcaseg::Segmenter(path, options ? *options : pcaseg_options{})};
  });
}

void pcaseg_close(pcaseg_segmenter* segmenter) { delete segmenter; }

pcaseg_status pcaseg_load_vocabulary(pcaseg_segmenter* segmenter, const char* path) {
  return guarded([&] {
    const std::string name = given(path, "path");
    given(segmenter, "segmenter")->segmenter.set_vocabulary(pcaseg::load_vocabulary(name), name);
  });
}

pcaseg_status pcaseg_set_vocabulary(pcaseg_segmenter* segmenter, const char* const* names, size_t count,
                                    const float* embeddings, size_t width, const char* encoder_sha256) {
  return guarded([&] {
    given(segmenter, "segmenter");
    given(embeddings, "embeddings");
    pcaseg::Vocabulary vocabulary;
    vocabulary.width = int64_t(width);
    vocabulary.encoder_sha256 = given(encoder_sha256, "encoder_sha256");
    for (size_t i = 0; i < count; ++i) vocabulary.names.push_back(given(given(names, "names")[i], "a name"));
    vocabulary.embeddings.assign(embeddings, embeddings + count * width);
    try {
      pcaseg::check_vocabulary(vocabulary);
    } catch (const std::invalid_argument& reason) {
      throw pcaseg::Error(PCASEG_BAD_VOCABULARY, reason.what());
    }
    segmenter->segmenter.set_vocabulary(std::move(vocabulary), "vocabulary");
  });
}

size_t pcaseg_class_count(const pcaseg_segmenter* segmenter) {
  return segmenter ? segmenter->segmenter.vocabulary().names.size() : 0;
}

const char* pcaseg_class_name(const pcaseg_segmenter* segmenter, size_t label) {
  return label < pcaseg_class_count(segmenter) ? segmenter->segmenter.vocabulary().names[label].c_str() : nullptr;
}

const char* pcaseg_bundle_sha256(const pcaseg_segmenter* segmenter) {
  return segmenter ? segmenter->segmenter.bundle_sha256().c_str() : nullptr;
}

pcaseg_status pcaseg_segment(pcaseg_segmenter* segmenter, const pcaseg_frame* frame, uint16_t* labels,
                             float* confidence, pcaseg_timings* timings) {
  return pcaseg_segment_batch(segmenter, frame, 1, labels, confidence, timings);
}

pcaseg_status pcaseg_segment_batch(pcaseg_segmenter* segmenter, const pcaseg_frame* frames, size_t count,
                                   uint16_t* labels, float* confidence, pcaseg_timings* timings) {
  return guarded([&] {
    given(labels, "labels");
    const pcaseg_timings times = given(segmenter, "segmenter")->segmenter.segment(frames, count, labels, confidence);
    if (timings) *timings = times;
  });
}
