#!/bin/sh
# Makes base.vhdx.zst and target.vhdx.zst: a disk with a GPT, an EFI partition (FAT)
# and a small Linux system (ext4), and what became of it. Needs e2fsprogs, dosfstools,
# mtools, fdisk, qemu-utils and zstd; no root. The files are kept, since other versions
# of these tools make other bytes.
set -eu
out=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
export SOURCE_DATE_EPOCH=1750000000 TZ=UTC

bytes() { # bytes SEED SIZE: the same every time, and easily packed
	seq $(($1 * 1000003)) $(($1 + 6)) 2000000000 | head -c "$2"
}

tree=tree
mkdir -p $tree/boot $tree/etc/kubernetes $tree/etc/systemd/system $tree/usr/bin $tree/usr/lib/modules/6.1.0-1-amd64 $tree/usr/lib/systemd/system \
	$tree/usr/share/doc $tree/var/lib/dpkg $tree/var/lib/containers/storage/overlay-images $tree/var/log $tree/srv/empty
ln -s usr/lib $tree/lib
printf 'NAME="Small"\nVERSION_ID="1"\n' >$tree/usr/lib/os-release
ln -s ../usr/lib/os-release $tree/etc/os-release
printf 'version: 1\n' >$tree/etc/kubernetes/config.yaml
printf '[Unit]\nDescription=one\n' >$tree/usr/lib/systemd/system/one.service
ln -s /usr/lib/systemd/system/one.service $tree/etc/systemd/system/one.service
bytes 1 60000 >$tree/boot/vmlinuz-6.1.0-1-amd64
bytes 2 200000 >$tree/usr/bin/large
bytes 3 90000 >$tree/usr/bin/moved
i=0
while [ $i -lt 60 ]; do bytes $((100 + i)) 12000 >$tree/var/log/filler$i; i=$((i + 1)); done
seq 1 20000 | gzip -9n >$tree/usr/share/doc/changelog.gz
seq 1 4000 >$tree/usr/share/doc/numbers
cat >$tree/var/lib/dpkg/status <<X
Package: kept
Status: install ok installed
Architecture: amd64
Version: 1.0-1

Package: upgraded
Status: install ok installed
Architecture: amd64
Version: 1:2.0-1+deb12u1

Package: gone
Status: install ok installed
Architecture: all
Version: 3

Package: purged
Status: deinstall ok config-files
Architecture: all
Version: 9
X
cat >$tree/var/lib/containers/storage/overlay-images/images.json <<X
[{"id":"aaaa","digest":"sha256:00","names":["registry.k8s.io/pause:3.9"]},{"id":"bbbb","digest":"sha256:01","names":["docker.io/library/old:1"]}]
X
find $tree -exec touch -h -d @1750000000 {} +

truncate -s 1M esp
mkfs.fat --invariant -n ESP -i 12345678 esp >/dev/null
mmd -i esp ::EFI
bytes 4 30000 >boot.efi
touch -d @1750000000 boot.efi
mcopy -m -i esp boot.efi ::EFI/bootx64.efi
mke2fs -q -t ext4 -b 1024 -L root -U 01234567-89ab-cdef-0123-456789abcdef -E hash_seed=01234567-89ab-cdef-0123-456789abcdef,root_owner=0:0 -d $tree root 4M

disk() { # disk NAME: puts the partitions into an image
	truncate -s 8M "$1.raw"
	sfdisk -q "$1.raw" <<X
label: gpt
label-id: 89abcdef-0123-4567-89ab-cdef01234567
start=1MiB, size=1MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid=00000000-0000-4000-8000-000000000001, name=esp
start=2MiB, size=4MiB, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, uuid=00000000-0000-4000-8000-000000000002, name=root
X
	dd if=esp of="$1.raw" bs=1M seek=1 conv=notrunc status=none
	dd if=root of="$1.raw" bs=1M seek=2 conv=notrunc status=none
	qemu-img convert -f raw -O vhdx -o subformat=dynamic,block_size=1M "$1.raw" "$1.vhdx"
	zstd -q -19 -f "$1.vhdx" -o "$out/$1.vhdx.zst"
}

disk base

# The upgrade: files go, others come in their place and are scattered over what is free.
printf 'version: 2\n' >config.yaml
sed -e 's/2.0-1+deb12u1/2.0-1+deb12u2/' -e 's/^Package: gone/Package: fresh/' $tree/var/lib/dpkg/status >status
printf '%s' '[{"id":"aaaa","digest":"sha256:00","names":["registry.k8s.io/pause:3.9"]},{"id":"cccc","digest":"sha256:02","names":["docker.io/library/fresh:2"]}]' >images.json
bytes 5 60000 >vmlinuz
bytes 6 230000 >scattered
{ seq 1 20000; echo one more; } | gzip -9n >changelog.gz
{ bytes 2 200000 | head -c 90000; printf 'a few bytes more'; bytes 2 200000 | tail -c +90001; } >large
touch -d @1750100000 config.yaml status images.json vmlinuz scattered changelog.gz large
{
	i=0
	while [ $i -lt 60 ]; do echo "rm var/log/filler$i"; i=$((i + 2)); done
	cat <<X
rm etc/kubernetes/config.yaml
write config.yaml etc/kubernetes/config.yaml
rm var/lib/dpkg/status
write status var/lib/dpkg/status
rm var/lib/containers/storage/overlay-images/images.json
write images.json var/lib/containers/storage/overlay-images/images.json
rm usr/share/doc/changelog.gz
write changelog.gz usr/share/doc/changelog.gz
rm usr/bin/large
write scattered usr/bin/scattered
write large usr/bin/large
write vmlinuz boot/vmlinuz-6.1.0-2-amd64
rm etc/systemd/system/one.service
X
} | debugfs -w -f - root >/dev/null 2>&1
e2fsck -fn root >/dev/null
disk target
