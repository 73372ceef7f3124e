package bundle

// execMatters says that the system keeps which files may be executed.
const execMatters = false
