package record

import (
	"fmt"
	"testing"
)

// blockOf is a block of one write with this many slots.
func blockOf(slots int) []byte {
	numbers := make([]int, slots)
	for i := range numbers {
		numbers[i] = i
	}
	u := fixedBundle(1, Digest{}, fixedWrite(1, numbers...))
	return EncodeBlock([]Digest{genesisDigest()}, 2, u.Encode())
}

func BenchmarkParseBlock(b *testing.B) {
	for _, slots := range []int{1, 100, MaxSlots} {
		raw := blockOf(slots)
		b.Run(fmt.Sprint(slots, "slots"), func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ParseBlock(raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVerifyBlock(b *testing.B) {
	network := fixedNetwork()
	block, err := ParseBlock(blockOf(1))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := block.Verify(network); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyTogether(b *testing.B) {
	for _, n := range []int{32, 64, 128} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			blocks := make([]*Block, n)
			for i := range blocks {
				u := fixedBundle(1, Digest{}, fixedWrite(i, i))
				block, err := ParseBlock(EncodeBlock([]Digest{genesisDigest()}, 2, u.Encode()))
				if err != nil {
					b.Fatal(err)
				}
				blocks[i] = block
			}
			b.ReportAllocs()
			for b.Loop() {
				if !VerifyTogether(fixedNetwork(), blocks) {
					b.Fatal("valid blocks are refused")
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "us/block")
		})
	}
}

func BenchmarkTags(b *testing.B) {
	network := fixedNetwork()
	b.ReportAllocs()
	for b.Loop() {
		network.Tags("/certs/web/site/tls.key")
	}
}

func BenchmarkEntryID(b *testing.B) {
	e := fixedEntry(1)
	e.Value = make([]byte, 1<<10)
	b.SetBytes(int64(len(e.Value)))
	b.ReportAllocs()
	for b.Loop() {
		e.ID()
	}
}
