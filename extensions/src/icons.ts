import { LabIcon } from '@jupyterlab/ui-components';

/** A sleeping moon: the platform's mark. */
export const moonIcon = new LabIcon({
  name: 'torpor:moon',
  svgstr: `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <path class="jp-icon3 jp-icon-selectable" fill="#616161"
    d="M11.1 3.2a.7.7 0 0 1 .5 1.1 6.9 6.9 0 0 0 9 9.6.7.7 0 0 1 1 .9A9.4 9.4 0 1 1 10.3 3.2z"/>
  <path class="jp-icon3 jp-icon-selectable" fill="#616161"
    d="M15.2 3.5h5.3v1.6l-3.3 3.6h3.4v1.7h-5.8V8.8l3.3-3.6h-2.9z"/>
</svg>`
});
