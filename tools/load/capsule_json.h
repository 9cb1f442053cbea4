// Parts of a capsule, for reports of several runs.
#pragma once

#include <nlohmann/json.hpp>

#include <levada/tools/load/options.h>
#include <levada/tools/load/result.h>

namespace levada::load {

// Everything that was asked for.
nlohmann::ordered_json options_to_json(const Options& options);
// The machine, and the version of this program.
nlohmann::ordered_json machine_to_json();
// Each that has a value, without loss.
nlohmann::ordered_json histograms_to_json(const Result& result);

}  // namespace levada::load
