// Where single rows leave the partial results of their attention, by runs of splits. Each row has as much room as it sees
// runs, whatever the context's length: a launch takes so many rows as there is room for.
#pragma once

#include <cstdint>
#include <vector>

#include "arith/constants.h"

namespace orcd {

// What one launch has room for.
struct PartialsRoom {
  uint64_t runs;  // at least as many as any row sees
  uint32_t rows;
};

// Runs of splits that the row at a position sees, without a window. A row with one has no partial results.
inline uint32_t runs_at(uint32_t position) { return position / (kAttnSplit * kAttnRun) + 1; }

// Cuts rows into launches, as many rows each as it says, in order. place[r]: of the step's row r, how many runs lie before
// its own. `rows`: (count) which rows, or null: the first ones.
inline void place_partials(const uint32_t* position, const uint32_t* rows, uint32_t count, const PartialsRoom& room,
                           uint32_t* place, std::vector<uint32_t>& launches) {
  launches.clear();
  uint64_t used = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t row = rows ? rows[i] : i, runs = runs_at(position[row]), takes = runs > 1 ? runs : 0;
    if (launches.empty() || launches.back() == room.rows || used + takes > room.runs) launches.push_back(0), used = 0;
    place[row] = static_cast<uint32_t>(used);
    used += takes;
    ++launches.back();
  }
}

}  // namespace orcd
