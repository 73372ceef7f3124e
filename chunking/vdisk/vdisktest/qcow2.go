package vdisktest

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// Qcow2 returns a qcow2 image of a disk, in clusters of so many bytes: the header, the table
// of reference counts (with none), that of level 1, and then the tables of level 2 with the
// clusters that are not zeros.
func Qcow2(disk []byte, cluster int) []byte {
	be := binary.BigEndian
	reach := int64(cluster) / 8 * int64(cluster)
	tables := int((int64(len(disk)) + reach - 1) / reach)
	first := (8*tables + cluster - 1) / cluster // clusters of the table of level 1
	image := make([]byte, (2+first)*cluster)
	copy(image, "QFI\xfb")
	be.PutUint32(image[4:], 3)
	be.PutUint32(image[20:], uint32(bits.Len(uint(cluster))-1))
	be.PutUint64(image[24:], uint64(len(disk)))
	be.PutUint32(image[36:], uint32(tables))
	be.PutUint64(image[40:], uint64(2*cluster))
	be.PutUint64(image[48:], uint64(cluster))
	be.PutUint32(image[56:], 1)
	be.PutUint32(image[96:], 4)
	be.PutUint32(image[100:], 104)
	add := func() int {
		image = append(image, make([]byte, cluster)...)
		return len(image) - cluster
	}
	zeros := make([]byte, cluster)
	for i := 0; i*cluster < len(disk); i++ {
		data := disk[i*cluster : min(len(disk), (i+1)*cluster)]
		if bytes.Equal(data, zeros[:len(data)]) {
			continue
		}
		entry := 2*cluster + 8*int(int64(i*cluster)/reach)
		if be.Uint64(image[entry:]) == 0 {
			at := add()
			be.PutUint64(image[entry:], uint64(at)|1<<63)
		}
		table := int(be.Uint64(image[entry:]) &^ (1 << 63))
		at := add()
		copy(image[at:], data)
		be.PutUint64(image[table+8*(i%(cluster/8)):], uint64(at)|1<<63)
	}
	return image
}
