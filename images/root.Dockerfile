# A root file system as an image.
FROM scratch
ADD root.tar /
CMD ["/bin/bash"]
