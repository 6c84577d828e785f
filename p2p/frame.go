package p2p

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// A stream is a sequence of frames: type(u8) length(u32) payload.
const (
	frameHeader  = 5
	maxFrame     = 1 << 20 // bytes of payload
	fewBytes     = 64 << 10
	frameTimeout = 15 * time.Second
)

// The types of frames. A type that a reader does not know is skipped, so that later versions can say more.
const (
	frameHello  byte = 1
	frameRefuse byte = 2 // why the stream ends, for the other side's log

	frameDigest byte = 10 // control stream
	framePing   byte = 11
	framePong   byte = 12
	framePeers  byte = 13
	frameView   byte = 14

	frameVector  byte = 20 // sync streams
	framePull    byte = 21
	frameAsk     byte = 22
	frameHeads   byte = 23
	frameParcels byte = 24
	frameDone    byte = 25
	// 26 asked whether a write is stored, before there was a release.
	frameProgress byte = 27
	frameCompare  byte = 28
	frameListed   byte = 29

	frameWants      byte = 30 // entry streams
	frameAnswers    byte = 31
	framePush       byte = 32
	frameChunkWants byte = 33
	frameChunk      byte = 34

	frameHave   byte = 40 // policy streams
	framePolicy byte = 41
)

// errFrame is wrapped by every error that a faulty peer caused, as opposed to a broken connection.
var errFrame = errors.New("invalid frame")

func frameError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errFrame, fmt.Sprintf(format, args...))
}

// rawStream is the part of a libp2p stream that frames need.
type rawStream interface {
	io.Reader
	io.Writer
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// frames reads and writes the frames of one stream. One goroutine may read while others write.
type frames struct {
	s     rawStream
	r     *bufio.Reader
	heard func(kind byte, bytes int) // called for every frame that came
	greet func() error               // waits for the peer's hello, before anything else is read; nil: done

	mu  sync.Mutex // one write at a time
	buf []byte
}

func newFrames(s rawStream, heard func(kind byte, bytes int)) *frames {
	return &frames{s: s, r: bufio.NewReader(s), heard: heard}
}

// read waits up to idle for the next frame, zero for ever; its payload has to follow within frameTimeout.
func (f *frames) read(idle time.Duration) (kind byte, payload []byte, err error) {
	if err := f.greeted(); err != nil {
		return 0, nil, err
	}
	var deadline time.Time
	if idle > 0 {
		deadline = time.Now().Add(idle)
	}
	if err := f.s.SetReadDeadline(deadline); err != nil {
		return 0, nil, err
	}
	if kind, err = f.r.ReadByte(); err != nil {
		return 0, nil, err
	}
	if err := f.s.SetReadDeadline(time.Now().Add(frameTimeout)); err != nil {
		return 0, nil, err
	}
	payload, err = readPayload(f.r)
	if err == nil && f.heard != nil {
		f.heard(kind, frameHeader+len(payload))
	}
	return kind, payload, err
}

// greeted waits for the peer's hello unless it is here already.
func (f *frames) greeted() error {
	greet := f.greet
	if greet == nil {
		return nil
	}
	f.greet = nil // it reads, too
	return greet()
}

// readPayload reads length and payload. It takes no more memory than a few times what really came, whatever the length
// claims.
func readPayload(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, noEOF(err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return nil, frameError("length %d is over the limit of %d", n, maxFrame)
	}
	b := make([]byte, min(n, fewBytes))
	if _, err := io.ReadFull(r, b); err != nil || n <= fewBytes {
		return b, noEOF(err)
	}
	whole := make([]byte, n)
	_, err := io.ReadFull(r, whole[copy(whole, b):])
	return whole, noEOF(err)
}

// noEOF turns the end of the stream inside a frame into what it is.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// write sends one frame; its payload may come in parts. It blocks on the flow control of the stream, at most for
// frameTimeout.
func (f *frames) write(kind byte, payload ...[]byte) error {
	size := 0
	for _, part := range payload {
		size += len(part)
	}
	if size > maxFrame {
		return fmt.Errorf("frame of %d bytes is over the limit of %d", size, maxFrame)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.buf = append(f.buf[:0], kind)
	f.buf = binary.BigEndian.AppendUint32(f.buf, uint32(size))
	if err := f.s.SetWriteDeadline(time.Now().Add(frameTimeout)); err != nil {
		return err
	}
	for _, part := range payload {
		if len(part) <= fewBytes { // in one piece with what comes before it
			f.buf = append(f.buf, part...)
			continue
		}
		if err := f.flush(); err != nil {
			return err
		}
		if _, err := f.s.Write(part); err != nil { // a copy of it would cost more
			return err
		}
	}
	return f.flush()
}

func (f *frames) flush() error {
	if len(f.buf) == 0 {
		return nil
	}
	_, err := f.s.Write(f.buf)
	if f.buf = f.buf[:0]; cap(f.buf) > fewBytes {
		f.buf = nil // kept streams are idle most of the time
	}
	return err
}
