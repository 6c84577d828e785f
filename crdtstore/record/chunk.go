package record

import "io"

// ReadChunk reads the next chunk of a value: ChunkSize bytes, fewer only at its end, none after it. An error of r is
// never taken for the end, so a value that breaks off is not a shorter one.
func ReadChunk(r io.Reader) ([]byte, error) {
	chunk := make([]byte, ChunkSize)
	n := 0
	for n < len(chunk) {
		k, err := r.Read(chunk[n:])
		n += k
		if err == io.EOF { //nolint:errorlint // io.ErrUnexpectedEOF, which io.ReadFull gives for both, is another
			break
		}
		if err != nil {
			return nil, err
		}
	}
	return chunk[:n], nil
}
