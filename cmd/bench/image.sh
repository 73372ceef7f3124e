# Builds base.vhdx and target.vhdx in the current folder: a Debian 12 system on a GPT
# disk, and the same after "apt-get dist-upgrade" and new packages, made inside the
# mounted disk. Needs root, debootstrap, dosfstools, e2fsprogs, fdisk and qemu-utils.
set -euo pipefail
mirror=${DEBIAN_MIRROR:-http://deb.debian.org}
truncate -s 6G disk.raw
sfdisk -q disk.raw <<X
label: gpt
start=1MiB, size=64MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=esp
start=65MiB, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name=root
X
esp=$(losetup -f --show -o $((1 << 20)) --sizelimit $((64 << 20)) disk.raw)
mkfs.fat -n ESP "$esp" >/dev/null
losetup -d "$esp"
root=$(losetup -f --show -o $((65 << 20)) --sizelimit $((6079 << 20)) disk.raw)
mkfs.ext4 -q -L root "$root"
mkdir -p mnt
mount "$root" mnt
trap 'umount mnt/proc 2>/dev/null || true; umount mnt 2>/dev/null || true; losetup -d "$root" 2>/dev/null || true; rm -f disk.raw' EXIT
debootstrap --components=main --include=linux-image-cloud-amd64,systemd-sysv,openssh-server,curl,python3,containerd,runc,iptables,ca-certificates,nginx-light,git,locales bookworm mnt "$mirror/debian"
chroot mnt apt-get clean
mkdir -p mnt/etc/kubernetes
echo "version: 1" >mnt/etc/kubernetes/config.yaml
chroot mnt dpkg-query -W -f '${Package}=${Version}\n' | sort >base.packages
umount mnt
qemu-img convert -f raw -O vhdx -o subformat=dynamic disk.raw base.vhdx

mount "$root" mnt
cat >mnt/etc/apt/sources.list <<X
deb $mirror/debian bookworm main
deb $mirror/debian bookworm-updates main
deb $mirror/debian-security bookworm-security main
X
cp /etc/resolv.conf mnt/etc/resolv.conf
cp -r /etc/apt/apt.conf.d/. mnt/etc/apt/apt.conf.d/
mount -t proc proc mnt/proc
export DEBIAN_FRONTEND=noninteractive
chroot mnt apt-get update -q
chroot mnt apt-get -y -q dist-upgrade
chroot mnt apt-get -y -q --no-install-recommends install jq htop socat conntrack ethtool vim-tiny ncdu postgresql-client
chroot mnt apt-get clean
umount mnt/proc
echo "version: 2" >mnt/etc/kubernetes/config.yaml
chroot mnt dpkg-query -W -f '${Package}=${Version}\n' | sort >target.packages
umount mnt
qemu-img convert -f raw -O vhdx -o subformat=dynamic disk.raw target.vhdx
