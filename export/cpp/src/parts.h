// Parts of objects: within the pixels of an object, the best of its parts, as `pcaseg.runtime.parts` does it.
#pragma once

#include <vector>

#include "windows.h"

namespace pcaseg {

/// Gives each pixel of an object to the best of the object's parts, or to the object where none is there.
/// `classes` is the class of each of the scores' maps, `objects` the object of each class, its own where it is no part;
/// `labels` and `confidence`, height x width, hold the classes of the best maps, and are changed in place.
void choose_parts(const Maps& scores, const std::vector<uint16_t>& classes, const std::vector<uint16_t>& objects,
                  int height, int width, uint16_t* labels, float* confidence);

}  // namespace pcaseg
