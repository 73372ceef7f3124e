package partition

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func read(t testing.TB, disk []byte, sector int64) *Table {
	t.Helper()
	table, err := Read(bytes.NewReader(disk), int64(len(disk)), sector)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func findings(t testing.TB, table *Table) string {
	t.Helper()
	var all []string
	if err := table.Check(func(off int64, text string) error {
		all = append(all, text)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, "\n")
}

const (
	testSectors = 4096 // of the test disks
	testEntries = 128
)

// part is a partition that makeGPT makes.
type part struct {
	first, last int64
	name        string
}

// makeGPT returns a disk with a GPT.
func makeGPT(sector int64, parts ...part) []byte {
	disk := make([]byte, testSectors*sector)
	disk[510], disk[511] = 0x55, 0xaa
	disk[446+4] = typeProtective
	le.PutUint32(disk[446+8:], 1)
	le.PutUint32(disk[446+12:], testSectors-1)
	entriesSectors := testEntries * gptEntry / sector
	last := int64(testSectors - 1)
	entries := make([]byte, testEntries*gptEntry)
	for i, p := range parts {
		e := entries[i*gptEntry:]
		copy(e, "type of 16 bytes")
		copy(e[16:], fmt.Sprintf("partition %6d", i))
		le.PutUint64(e[32:], uint64(p.first))
		le.PutUint64(e[40:], uint64(p.last))
		for j, c := range []rune(p.name) {
			le.PutUint16(e[56+2*j:], uint16(c))
		}
	}
	for _, h := range []struct{ at, other, entries int64 }{{1, last, 2}, {last, 1, last - entriesSectors}} {
		b := disk[h.at*sector:]
		copy(b, gptSignature)
		le.PutUint32(b[8:], 1<<16)
		le.PutUint32(b[12:], gptHeader)
		le.PutUint64(b[24:], uint64(h.at))
		le.PutUint64(b[32:], uint64(h.other))
		le.PutUint64(b[40:], uint64(2+entriesSectors))
		le.PutUint64(b[48:], uint64(last-entriesSectors-1))
		copy(b[56:], "disk of 16 bytes")
		le.PutUint64(b[72:], uint64(h.entries))
		le.PutUint32(b[80:], testEntries)
		le.PutUint32(b[84:], gptEntry)
		copy(disk[h.entries*sector:], entries)
		sign(disk, h.at*sector)
	}
	return disk
}

// sign makes the checksums of a header, and of its entries if they are in the disk,
// right.
func sign(disk []byte, at int64) {
	b := disk[at:]
	sector := int64(512)
	if string(disk[512:520]) != gptSignature {
		sector = 4096
	}
	from, n := sectorAt(b[72:])*sector, int64(le.Uint32(b[80:]))*int64(le.Uint32(b[84:]))
	if from < int64(len(disk)) && n >= 0 && n <= int64(len(disk))-from {
		le.PutUint32(b[88:], crc32.ChecksumIEEE(disk[from:from+n]))
	}
	le.PutUint32(b[16:], 0)
	le.PutUint32(b[16:], crc32.ChecksumIEEE(b[:gptHeader]))
}

func TestGPT(t *testing.T) {
	for _, sector := range []int64{512, 4096} {
		disk := makeGPT(sector, part{64, 1023, "EFI System"}, part{1024, 3000, "röt"})
		table := read(t, disk, sector)
		if all := findings(t, table); all != "" || table.Overlap {
			t.Errorf("Check finds %q", all)
		}
		want := fmt.Sprintf("[{1 %d %d 65707974-6f20-2066-3136-206279746573 EFI System 74726170-7469-6f69-6e20-202020202030 false}"+
			" {2 %d %d 65707974-6f20-2066-3136-206279746573 röt 74726170-7469-6f69-6e20-202020202031 false}]", 64*sector, 960*sector, 1024*sector, 1977*sector)
		if got := fmt.Sprint(table.Partitions); got != want || table.Scheme != GPT {
			t.Errorf("partitions are %s, want %s", got, want)
		}
		end := testSectors * sector
		want = fmt.Sprint([]Area{
			{"protective MBR", 0, sector}, {"primary GPT header", sector, sector}, {"primary GPT entries", 2 * sector, 16384},
			{"backup GPT entries", end - sector - 16384, 16384}, {"backup GPT header", end - sector, sector},
		})
		if got := fmt.Sprint(table.Areas); got != want {
			t.Errorf("areas are %s, want %s", got, want)
		}
	}
}

// TestDamaged changes one thing in a GPT with two partitions.
func TestDamaged(t *testing.T) {
	good := makeGPT(512, part{64, 1023, "a"}, part{1024, 3000, "b"})
	end := int64(len(good))
	for _, test := range []struct {
		name    string
		change  func(b []byte) []byte
		err     error
		found   string
		overlap bool
		parts   int
	}{
		{"primary header", func(b []byte) []byte { b[512+60]++; return b }, nil, "primary GPT: wrong checksum", false, 2},
		{"primary signature", func(b []byte) []byte { b[512]++; return b }, nil, "primary GPT: no signature", false, 2},
		{"primary entries", func(b []byte) []byte { b[1024]++; return b }, nil, "primary GPT: wrong checksum of the entries", false, 2},
		{"backup header", func(b []byte) []byte { b[end-512+60]++; return b }, nil, "backup GPT: wrong checksum", false, 2},
		{"backup entries", func(b []byte) []byte { b[end-600]++; return b }, nil, "backup GPT: wrong checksum of the entries", false, 2},
		{"both", func(b []byte) []byte { b[512]++; b[end-512]++; return b }, ErrInvalid, "", false, 0},
		{"no protective MBR", func(b []byte) []byte { clear(b[:512]); return b }, nil, "protective MBR", false, 2},
		{"no table", func(b []byte) []byte { clear(b[:1024]); clear(b[end-512:]); return b }, ErrFormat, "", false, 0},
		{"grown", func(b []byte) []byte { return append(b, make([]byte, 1<<20)...) }, nil, "the backup is in sector 4095, the disk's last is 6143", false, 2},
		{"shrunk", func(b []byte) []byte { return b[:len(b)-512*100] }, nil, "backup GPT: no signature", false, 2},
		{"cut off", func(b []byte) []byte { return b[:512*2000] }, nil, "partition 2: sectors 1024 to 3000", false, 1},
		{"other copy", func(b []byte) []byte { b[end-512+56]++; sign(b, end-512); return b }, nil, "differ: disk GUID", false, 2},
		{"other sector", func(b []byte) []byte { b[512+24] = 2; sign(b, 512); return b }, nil, "header of sector 2", false, 2},
		{"many entries", func(b []byte) []byte { le.PutUint32(b[512+80:], 1<<20); sign(b, 512); return b }, ErrUnsupported, "", false, 0},
		{"large entries", func(b []byte) []byte { le.PutUint32(b[512+84:], 1<<20); sign(b, 512); return b }, ErrUnsupported, "", false, 0},
		{"small entries", func(b []byte) []byte { le.PutUint32(b[512+84:], 0); sign(b, 512); return b }, ErrUnsupported, "", false, 0},
		{"entries outside", func(b []byte) []byte { le.PutUint64(b[512+72:], 1<<63); sign(b, 512); return b }, nil, "entries at sector", false, 2},
		{"overlap", func(b []byte) []byte {
			for _, at := range []int64{1024, end - 512 - 16384} {
				le.PutUint64(b[at+128+32:], 100) // the second begins in the first
			}
			sign(b, 512)
			sign(b, end-512)
			return b
		}, nil, "partition 2 overlaps partition 1", true, 2},
		{"backwards", func(b []byte) []byte {
			for _, at := range []int64{1024, end - 512 - 16384} {
				le.PutUint64(b[at+40:], 10)
			}
			sign(b, 512)
			sign(b, end-512)
			return b
		}, nil, "partition 1: sectors 64 to 10", false, 1},
		{"over the table", func(b []byte) []byte {
			for _, at := range []int64{1024, end - 512 - 16384} {
				le.PutUint64(b[at+32:], 3)
			}
			sign(b, 512)
			sign(b, end-512)
			return b
		}, nil, "usable are", true, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			bad := test.change(bytes.Clone(good))
			table, err := Read(bytes.NewReader(bad), int64(len(bad)), 512)
			if !errors.Is(err, test.err) || (err == nil) != (test.err == nil) || (table == nil) != (err != nil) {
				t.Fatalf("Read = %v, want %v", err, test.err)
			}
			if err != nil {
				return
			}
			if all := findings(t, table); !strings.Contains(all, test.found) || table.Overlap != test.overlap || len(table.Partitions) != test.parts {
				t.Errorf("Check finds %q, want %q; overlap %v, want %v; %d partitions, want %d",
					all, test.found, table.Overlap, test.overlap, len(table.Partitions), test.parts)
			}
		})
	}
}

// put writes an MBR entry.
func put(disk []byte, at int64, entry int, status, kind byte, first, size uint32) {
	b := disk[at*512+446+16*int64(entry):]
	b[0], b[4] = status, kind
	le.PutUint32(b[8:], first)
	le.PutUint32(b[12:], size)
	disk[at*512+510], disk[at*512+511] = 0x55, 0xaa
}

// makeMBR returns a disk with a partition and an extended one with two logical ones.
func makeMBR() []byte {
	disk := make([]byte, testSectors*512)
	le.PutUint32(disk[440:], 0x1234abcd)
	put(disk, 0, 0, 0x80, 0x83, 64, 1000)
	put(disk, 0, 1, 0, 0x05, 2000, 2000)
	put(disk, 2000, 0, 0, 0x83, 10, 500)
	put(disk, 2000, 1, 0, 0x05, 1000, 500)
	put(disk, 3000, 0, 0, 0x82, 10, 490)
	return disk
}

func TestMBR(t *testing.T) {
	table := read(t, makeMBR(), 512)
	want := fmt.Sprint("mbr 0x1234abcd ", []Partition{
		{1, 64 * 512, 1000 * 512, "0x83", "", "1234abcd-01", false},
		{2, 2000 * 512, 2000 * 512, "0x05", "", "1234abcd-02", true},
		{5, 2010 * 512, 500 * 512, "0x83", "", "1234abcd-05", false},
		{6, 3010 * 512, 490 * 512, "0x82", "", "1234abcd-06", false},
	}, []Area{{"MBR", 0, 512}, {"EBR 5", 2000 * 512, 512}, {"EBR 6", 3000 * 512, 512}})
	if got := fmt.Sprint(table.Scheme, " ", table.ID, " ", table.Partitions, table.Areas); got != want {
		t.Errorf("Read = %s, want %s", got, want)
	}
	if all := findings(t, table); all != "" || table.Overlap {
		t.Errorf("Check finds %q", all)
	}
	for _, test := range []struct {
		name   string
		change func(b []byte)
		found  string // "" if there is no table
	}{
		{"status", func(b []byte) { b[446] = 0x33 }, ""},
		{"outside", func(b []byte) { put(b, 0, 0, 0, 0x83, 64, 1<<31) }, ""},
		{"overlap", func(b []byte) { put(b, 0, 0, 0, 0x83, 64, 1950) }, ""},
		{"empty", func(b []byte) { clear(b[446:510]) }, ""},
		{"size 0", func(b []byte) { put(b, 0, 0, 0, 0x83, 64, 0) }, ""},
		{"no signature", func(b []byte) { b[511] = 0 }, ""},
		{"loop", func(b []byte) { put(b, 3000, 1, 0, 0x05, 1000, 500) }, "no end"},
		{"next outside", func(b []byte) { put(b, 3000, 1, 0, 0x05, 1<<31, 500) }, "the next boot sector"},
		{"logical outside", func(b []byte) { put(b, 3000, 0, 0, 0x83, 10, 2000) }, "not in the extended partition"},
		{"logical overlap", func(b []byte) { put(b, 2000, 0, 0, 0x83, 10, 1005) }, "overlaps"},
		{"no second boot sector", func(b []byte) { clear(b[3000*512 : 3001*512]) }, "no signature"},
	} {
		disk := makeMBR()
		test.change(disk)
		table, err := Read(bytes.NewReader(disk), int64(len(disk)), 512)
		if test.found == "" {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("%s: Read = %v, want %v", test.name, err, ErrFormat)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		} else if all := findings(t, table); !strings.Contains(all, test.found) {
			t.Errorf("%s: Check finds %q, want %q", test.name, all, test.found)
		}
	}
	// A chain that goes on for ever is read for a while.
	disk := makeMBR()
	for at := range uint32(1500) {
		put(disk, 2000+int64(at), 0, 0, 0, 0, 0)
		put(disk, 2000+int64(at), 1, 0, 0x05, at+1, 1)
	}
	if all := findings(t, read(t, disk, 512)); !strings.Contains(all, "no end") {
		t.Errorf("long chain: Check finds %q", all)
	}
}

// TestOracle compares with what sfdisk says of what it made.
func TestOracle(t *testing.T) {
	if _, err := exec.LookPath("sfdisk"); err != nil {
		t.Skip("sfdisk is not on PATH (package fdisk)")
	}
	for name, script := range map[string]string{
		"gpt": "label: gpt\n,10M,U\n,20M,L\nname=\"rest of it\"\n",
		"dos": "label: dos\n,10M,c,*\n,40M,E\n,20M,L\n,10M,S\n,5M,L\n,5M,S\n",
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "disk")
			if err := os.WriteFile(file, make([]byte, 100<<20), 0o666); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("sfdisk", file)
			cmd.Stdin = strings.NewReader(script)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			out, err := exec.Command("sfdisk", "--json", file).Output()
			if err != nil {
				t.Fatal(err)
			}
			var want struct {
				PartitionTable struct {
					Label, ID  string
					Partitions []struct {
						Node, Type, UUID, Name string
						Start, Size            int64
					}
				}
			}
			if err := json.Unmarshal(out, &want); err != nil {
				t.Fatal(err)
			}
			disk, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			table := read(t, disk, 512)
			if all := findings(t, table); all != "" {
				t.Errorf("Check finds %q", all)
			}
			if !strings.EqualFold(table.ID, want.PartitionTable.ID) || len(table.Partitions) != len(want.PartitionTable.Partitions) || len(table.Partitions) < 3 {
				t.Fatalf("Read = %+v, sfdisk says\n%s", table, out)
			}
			for i, p := range want.PartitionTable.Partitions {
				got := table.Partitions[i]
				kind := strings.ToLower(p.Type)
				if name == "dos" {
					kind = "0x" + strings.Repeat("0", 2-len(kind)) + kind
				}
				if got.Off != p.Start*512 || got.Size != p.Size*512 || got.Type != kind || got.Name != p.Name ||
					p.UUID != "" && !strings.EqualFold(got.ID, p.UUID) || !strings.HasSuffix(p.Node, fmt.Sprint(got.Number)) {
					t.Errorf("partition is %+v, sfdisk says %+v", got, p)
				}
			}
		})
	}
}

func FuzzRead(f *testing.F) {
	gpt := makeGPT(512, part{64, 1023, "a"}, part{1024, 3000, "b"})
	f.Add(gpt[:2048], gpt[len(gpt)-512-16384:], []byte(nil))
	mbr := makeMBR()
	f.Add(mbr[:512], []byte(nil), mbr[2000*512:2001*512])
	f.Fuzz(func(t *testing.T, first, last, ebr []byte) {
		disk := make([]byte, testSectors*512)
		copy(disk, first)
		copy(disk[2000*512:], ebr)
		copy(disk[max(0, len(disk)-len(last)):], last)
		for _, at := range []int64{512, int64(len(disk)) - 512} {
			sign(disk, at) // else no change would come far
		}
		table, err := Read(bytes.NewReader(disk), int64(len(disk)), 512)
		if err != nil {
			if table != nil {
				t.Fatal("a table and an error")
			}
			return
		}
		findings(t, table)
		for _, p := range table.Partitions {
			if p.Off < 0 || p.Size <= 0 || p.Off > int64(len(disk)) || p.Size > int64(len(disk))-p.Off {
				t.Fatalf("partition %+v", p)
			}
		}
		end := int64(0)
		for _, a := range table.Areas {
			if a.Off < end && !table.Overlap || a.Size <= 0 || a.Off+a.Size > int64(len(disk)) {
				t.Fatalf("area %+v", a)
			}
			end = a.Off + a.Size
		}
	})
}
