// Package place writes files of a manifest into a folder: staged, verified,
// resumable, and visible all at once.
//
// Everything is first written to a staging folder beside the target. A file gets
// its name there only when its digest was verified. [Tree] then renames the
// whole to the target. After an interruption the staging folder stays, and the
// next call for the same manifest verifies what is in it and goes on.
//
// Nothing is ever written outside the staging folder: paths come from validated
// manifests, in which nothing stands under a link, and links are made last.
package place
