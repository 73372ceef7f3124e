// Package addon knows the addons of a product: what their manifests say, which
// container images, packages and downloads they need, and how they are chosen by
// name.
//
// An addon is a folder with a manifest ("addon.manifest.yaml") of one or more
// implementations. An implementation with the addon's own name lives in that
// folder, any other in a folder of its own name inside it. The addon ingress with
// the implementation nginx is called "ingress nginx"; as part of a file name it is
// ingress-nginx.
//
// Manifests are read leniently, since products add keys of their own, and changed
// as text ([Filtered], [Merge]): what is not touched keeps its bytes.
package addon
