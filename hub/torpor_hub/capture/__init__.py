"""An environment to an image: what a capture is asked and answers, and the captures there are."""
