// Package bundle writes and reads addon bundles: files that carry some addons of
// a product to where there is no network, with their files, the container images
// that they need, and their Debian packages and downloads.
//
// A [Plan] says what goes into a bundle, and writes it as a plain zip that any
// tool can open and check ("ferry.bundle/1"), or as a tar of an OCI image layout
// of the shape that K2s writes and reads. The same version, selection and time
// give the same bytes on every system. [Open] reads both, bundles that K2s made,
// and K2s' zips of before 1.7; everything in a bundle is verified before any of
// it is used. [Import] brings addons of a bundle into a folder, all or nothing;
// [Overlay] lays them over a stored version.
//
// # Zip
//
//	addons.json               format, versions, and every file below with its SHA-256
//	addons/ADDON[/IMPL]/…     the addons' files, as in the package
//	images/NAME.tar           container images, each once
//	packages/KIND/…           Debian packages and downloads, each once
//	README.txt, SHA256SUMS    to check it with standard tools
//
// # OCI image layout
//
// One manifest for each implementation. Its layers, in this order:
//
//	config.tar.gz       addon.manifest.yaml, values and settings, config/
//	manifests.tar.gz    what is in manifests/
//	charts.tar.gz       what is in manifests/chart/
//	scripts.tar.gz      all other files of the implementation
//	images-linux.tar    a tar of image archives
//	images-windows.tar  the same for Windows nodes
//	packages.tar.gz     debianpackages/, linuxpackages/, windowspackages/
//	addon.tar.gz        the addon's files that belong to no implementation
//
// Every manifest says what the index says of the whole bundle, and so keeps it when
// addons are copied one by one between registries. Beside the layout stand README.txt
// and SHA256SUMS.
//
// K2s reads no more than one layer of images for each manifest. So that an image
// is there once, implementations that share images share the layer, which then
// holds the images of all of them; an annotation says whose is which.
package bundle
