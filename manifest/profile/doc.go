// Package profile says what a product's package is: which files of its tree
// belong to it, which of those only an offline package carries, which variants
// there are, where its addons are, and what must never be missing.
//
// A [Profile] is a YAML file of the format "ferry.profile/1"; [Builtin] has some,
// [Schema] describes the format. [Profile.Select] applies one to a manifest.
//
// # Rules
//
// A rule names a path from the package's root, and with it everything below:
//
//	bin/cni           bin/cni and bin/cni/flannel.exe, never bin/cni2
//	.git              .git and what is in it, never .github
//	build/            the folder build, never a file of that name
//	bin/*.qcow2       "*", "?" and "[a-z]" stand within one component
//	**/test           "**" stands for any number of components, none too
//	docs/**           what is in docs, at any depth
//
// Backslashes count as slashes. Case counts, unless the profile says
// ignore_case: true.
package profile
