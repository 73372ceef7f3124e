// Package tree reads directories, zips, tars and single files in one way: as a
// tree of nodes with slash-separated paths.
//
// What a path holds is recognised by content, never by name. Names come out
// portable or not at all: backslashes of zips written on Windows become slashes,
// names in CP437 become UTF-8, and whatever could lead outside the tree (absolute
// paths, "..", drive letters) is an [*UnsafePathError].
//
// Directories, zips and plain tars can be read at random; compressed tars are
// read once from front to back, and are spooled to a temporary file only when
// somebody asks for one of their files out of order.
package tree
