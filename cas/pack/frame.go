package pack

import (
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// Encoder compresses frames. It is not safe for concurrent use; its memory is
// that of one zstd encoder of the default level (about 20 MiB).
type Encoder struct{ zstd *zstd.Encoder }

// NewEncoder returns an Encoder.
func NewEncoder() *Encoder {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderCRC(false),
		zstd.WithWindowSize(MaxFrame), zstd.WithZeroFrames(true))
	if err != nil {
		panic("pack: internal error: " + err.Error())
	}
	return &Encoder{enc}
}

// Encode appends the coded form of plain to dst: compressed, or as it is where
// that saves less than 1/64, which spares readers the decoding.
func (e *Encoder) Encode(dst, plain []byte) ([]byte, Codec) {
	start := len(dst)
	coded := e.zstd.EncodeAll(plain, dst)
	if len(coded)-start < len(plain)-len(plain)/64 {
		return coded, Zstd
	}
	return append(coded[:start], plain...), Stored
}

// Decoder decodes frames. It is safe for concurrent use.
type Decoder struct{ zstd *zstd.Decoder }

// NewDecoder returns a Decoder.
func NewDecoder() *Decoder {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0),
		zstd.WithDecoderMaxMemory(MaxFrame), zstd.WithDecoderMaxWindow(MaxFrame))
	if err != nil {
		panic("pack: internal error: " + err.Error())
	}
	return &Decoder{dec}
}

// Decode returns the plain bytes of a frame, which are at most MaxFrame. A
// stored frame comes back as body itself. Errors match ErrInvalid.
func (d *Decoder) Decode(codec Codec, body []byte) ([]byte, error) {
	switch codec {
	case Stored:
		if len(body) > MaxFrame {
			return nil, fmt.Errorf("%w: stored frame of %d bytes", ErrInvalid, len(body))
		}
		return body, nil
	case Zstd:
		plain, err := d.zstd.DecodeAll(body, nil)
		if err != nil {
			return nil, fmt.Errorf("%w: frame: %w", ErrInvalid, err)
		}
		return plain, nil
	default:
		return nil, fmt.Errorf("%w: unknown frame codec %d", ErrInvalid, codec)
	}
}
