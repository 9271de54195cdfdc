#pragma once

namespace distorch::graph {

/// How long a node takes. Before a long one, quick ones are run that what comes after it needs as
/// well: it may then look at what that will be (upcoming.h), and their errors cost no long work.
enum class Pace { Usual, Quick, Long };

}  // namespace distorch::graph
