"""Segmentor, critic and the U-Net baseline; torch alone."""
