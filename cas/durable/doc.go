// Package durable writes files so that after a crash either the whole new file
// stands under its name or none of it does.
//
// A file is written under a temporary name in the folder of its final one,
// synced, closed, renamed, and then the folder is synced where the system can
// do that (not on Windows).
package durable
