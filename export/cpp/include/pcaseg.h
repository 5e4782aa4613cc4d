/* libpcaseg: open-vocabulary segmentation of camera frames, from a bundle that pcaseg exported.
 *
 *     pcaseg_segmenter* segmenter = NULL;
 *     if (pcaseg_open("scene.pcaseg", NULL, &segmenter) ||
 *         pcaseg_load_vocabulary(segmenter, "room.safetensors") ||
 *         pcaseg_segment(segmenter, &frame, labels, NULL, NULL))
 *       fprintf(stderr, "error: %s\n", pcaseg_error());
 *     pcaseg_close(segmenter);
 *
 * The labels are those of the Python runtime, byte for byte. No exception leaves the library. Every call that can
 * fail returns a status, and `pcaseg_error` then says what is wrong in one sentence that names the file and the mend.
 * Different segmenters may run in different threads; one segmenter serves one thread at a time.
 */
#ifndef PCASEG_H
#define PCASEG_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define PCASEG_API __attribute__((visibility("default")))
#else
#define PCASEG_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pcaseg_segmenter pcaseg_segmenter;

typedef enum pcaseg_status {
  PCASEG_OK = 0,
  PCASEG_BAD_ARGUMENT = 1,   /* an option outside its choices */
  PCASEG_BAD_BUNDLE = 2,     /* missing, altered, of another schema, or refused by the inference library */
  PCASEG_BAD_VOCABULARY = 3, /* damaged, or of another text encoder; the former vocabulary stays */
  PCASEG_BAD_IMAGE = 4,      /* no pixels, or another size than the bundle is fixed to */
  PCASEG_FAILED = 5          /* out of memory, or the inference library failed while it ran */
} pcaseg_status;

/* Zero or NULL in any field means its default, and so does NULL in place of the options. */
typedef struct pcaseg_options {
  const char* backend;  /* "onnxruntime" (default), or "tensorrt" where the library was built with it */
  const char* strategy; /* "single" or "sliding"; default: the graph's own, or "single" where it holds none */
  int threads;          /* CPU threads; default: the inference library's choice */
  int window_batch;     /* windows that run at once through a graph of logits; default 1 */
} pcaseg_options;

/* One upright frame, RGB, a byte per channel. */
typedef struct pcaseg_frame {
  const uint8_t* pixels;
  int height;
  int width;
  size_t row_bytes; /* from one row to the next; 0 where rows are packed */
} pcaseg_frame;

typedef struct pcaseg_timings {
  double prepare_ms; /* frames to windows; 0 with a graph of labels, which does all within the network */
  double network_ms;
  double labels_ms; /* logits to labels; 0 with a graph of labels */
  double total_ms;
} pcaseg_timings;

/* Version of the library, such as "0.1.0". */
PCASEG_API const char* pcaseg_version(void);

/* What the last call of this thread that failed had to say; valid until the thread's next failure. */
PCASEG_API const char* pcaseg_error(void);

/* Opens a bundle, folder or zip file: the manifest is checked field by field, and each file's SHA-256 before it is
 * parsed. On success `*segmenter` is to be closed by the caller; on failure it is NULL. */
PCASEG_API pcaseg_status pcaseg_open(const char* bundle, const pcaseg_options* options, pcaseg_segmenter** segmenter);

/* Closes a segmenter; NULL is fine. */
PCASEG_API void pcaseg_close(pcaseg_segmenter* segmenter);

/* Sets the classes of the frames to come from a .safetensors file, as `pcaseg vocab` writes it, with synonyms and parts
 * if need be. */
PCASEG_API pcaseg_status pcaseg_load_vocabulary(pcaseg_segmenter* segmenter, const char* path);

/* The same from memory, a row for each class: `count` names in UTF-8 and their embeddings, count x width float32 of unit
 * norm, made by the text encoder whose SHA-256 is given. */
PCASEG_API pcaseg_status pcaseg_set_vocabulary(pcaseg_segmenter* segmenter, const char* const* names, size_t count,
                                               const float* embeddings, size_t width, const char* encoder_sha256);

/* Number of classes, 0 before a vocabulary is set, and the name of one; NULL beyond the last. */
PCASEG_API size_t pcaseg_class_count(const pcaseg_segmenter* segmenter);
PCASEG_API const char* pcaseg_class_name(const pcaseg_segmenter* segmenter, size_t label);

/* SHA-256 of the bundle's manifest, and through it of everything in the bundle: 64 hexadecimal digits. */
PCASEG_API const char* pcaseg_bundle_sha256(const pcaseg_segmenter* segmenter);

/* Segments one frame: `labels` takes height x width indices of classes, `confidence` (or NULL) as many scores in 0..1,
 * `timings` (or NULL) what it took. */
PCASEG_API pcaseg_status pcaseg_segment(pcaseg_segmenter* segmenter, const pcaseg_frame* frame, uint16_t* labels,
                                        float* confidence, pcaseg_timings* timings);

/* Segments `count` frames of one size in one go; the results follow each other in `labels` and `confidence`. A graph
 * of labels runs all frames at once, one of logits their windows, `window_batch` at a time. */
PCASEG_API pcaseg_status pcaseg_segment_batch(pcaseg_segmenter* segmenter, const pcaseg_frame* frames, size_t count,
                                              uint16_t* labels, float* confidence, pcaseg_timings* timings);

#ifdef __cplusplus
}
#endif
#endif
